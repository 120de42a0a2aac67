"""What is taken from the ``config.yaml`` beside a checkpoint, which may be somebody else's: names and numbers only."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vit_attn.commands.parsing.renamed import RENAMED
from vit_attn.commands.parsing.yaml_limits import MOST_CHARACTERS, load_yaml
from vit_attn.errors import UserError

DATA = (
    "dataset",
    "root",
    "download",
    "batch_size",
    "num_workers",
    "loader",
    "memory_budget_gb",
    "img_size",
    "channels",
    "normalize",
    "skip_corrupt",
    "columns",
    "bits",
)
"""Settings of the data that say which images are measured and how they are read; augmentation is for training."""
TRAINER = ("accelerator", "devices", "precision")
"""Settings of the trainer that say where and how exactly is computed. Others, such as a profiler, name code to run."""
WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
"""What a device or a precision is called; a class that jsonargparse would import has a dot or a capital letter."""


def read_run_config(path: Path) -> dict[str, Any]:
    """A run's configuration as plain data; nothing in it is imported or built.

    Args:
        path: The ``config.yaml`` of a run.

    Raises:
        UserError: If it cannot be read, is no mapping, or is too large, too deep or full of aliases.
    """
    return _with_current_names(_read(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CHARACTERS + 1).decode("utf-8")
        content = load_yaml(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} is not the configuration of a run")
    return content


def config_to_resume(folder: Path) -> str:
    """Value of ``--config`` that repeats a run: its file, or the file's content if settings were renamed since.

    Args:
        folder: The run.
    """
    path = folder / "config.yaml"
    try:
        stored = _read(path)
    except UserError:  # the parser reports it
        return str(path)
    current = _with_current_names(stored)
    return str(path) if current == stored else yaml.safe_dump(current)


def settings_to_measure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The least of a configuration that a checkpoint is measured with: its data, its devices and its seed.

    Args:
        config: What :func:`read_run_config` gives.
    """
    data = {name: value for name, value in _section(config, "data", DATA).items() if _is_plain(value)}
    trainer = {name: value for name, value in _section(config, "trainer", TRAINER).items() if _is_word(value)}
    seed = config.get("seed_everything")
    kept = {"seed_everything": seed if type(seed) is int else None, "data": data, "trainer": trainer}
    return {name: value for name, value in kept.items() if value not in (None, {})}


def options_of_run(folder: Path) -> list[str]:
    """The options that measure a checkpoint as the run in that folder would."""
    kept = settings_to_measure(read_run_config(folder / "config.yaml"))
    return ["--config", yaml.safe_dump(kept)] if kept else []


def _with_current_names(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the names that settings have now."""
    current = dict(config)
    for section, names in RENAMED.items():
        if isinstance(settings := config.get(section), Mapping):
            current[section] = {names.get(name, name): value for name, value in settings.items()}
    return current


def _section(config: Mapping[str, Any], name: str, names: tuple[str, ...]) -> dict[str, Any]:
    section = config.get(name)
    return {each: section[each] for each in names if each in section} if isinstance(section, Mapping) else {}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _is_word(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(each) is int for each in value)
    return type(value) is int or (isinstance(value, str) and WORD.fullmatch(value) is not None)
