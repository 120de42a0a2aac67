"""Settings from the ``config.yaml`` of a run, which may be somebody else's: only plain values are used."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vit_attn.checkpoints.contents import SETTINGS_KEY
from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.checkpoints.model_card import card_from_state
from vit_attn.commands.parsing.renamed import rename_settings
from vit_attn.commands.parsing.yaml_limits import MAX_CHARACTERS, load_yaml
from vit_attn.errors import UserError
from vit_attn.parts import imported_parts

DATA_SETTINGS = (
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
    "train_split",
    "held_out",
)
"""Settings of the data that choose images and how they are read. Augmentation is left out: it is for training."""
TRAINER_SETTINGS = ("accelerator", "devices", "precision")
"""Settings of the trainer that choose device and precision. Others, such as a profiler, can name code to run."""
DEVICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
"""Names of devices and precisions; a class that jsonargparse would import has a dot or a capital letter."""


def read_run_config(path: Path) -> dict[str, Any]:
    """Read a run's configuration as plain values under their current names; nothing in it is imported or built.

    Args:
        path: The ``config.yaml`` of a run.

    Raises:
        UserError: If it cannot be read, is not a mapping, or is too large, too deep or full of aliases.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CHARACTERS + 1).decode("utf-8")
        content = load_yaml(text)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} is not the configuration of a run")
    return rename_settings(content)


def evaluation_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Select the settings with which a checkpoint is evaluated: its data, devices, precision and seed.

    Args:
        config: Configuration from :func:`read_run_config`.
    """
    data = _own_data(config) or {
        name: value for name, value in _section(config, "data", DATA_SETTINGS).items() if _is_plain(value)
    }
    trainer = {
        name: value for name, value in _section(config, "trainer", TRAINER_SETTINGS).items() if _is_device_name(value)
    }
    seed = config.get("seed_everything")
    selected = {"seed_everything": seed if type(seed) is int else None, "data": data, "trainer": trainer}
    return {name: value for name, value in selected.items() if value not in (None, {})}


def _own_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Select class and plain arguments of a data module of one's own, if its module of parts is imported already."""
    data = config.get("data")
    path = data.get("class_path") if isinstance(data, Mapping) else None
    if not isinstance(path, str) or path.rpartition(".")[0] not in imported_parts():
        return {}
    given = data.get("init_args") if isinstance(data, Mapping) else None
    arguments = given if isinstance(given, Mapping) else {}
    plain = {name: value for name, value in arguments.items() if _is_plain(value)}
    return {"class_path": path, "init_args": plain}


def evaluation_options(folder: Path) -> list[str]:
    """Make the options that evaluate a checkpoint of the run in a folder on the run's data."""
    selected = evaluation_settings(read_run_config(folder / "config.yaml"))
    return ["--config", yaml.safe_dump(selected)] if selected else []


def options_of_checkpoint(path: Path) -> list[str]:
    """Make the options that evaluate a checkpoint without a ``config.yaml``, as of a run in Python, on its data set.

    Args:
        path: The checkpoint; if there is none, the command reports it.

    Raises:
        UserError: If it is no checkpoint of ours, or of data of one's own, which it does not name.
    """
    if not path.is_file():
        return []
    checkpoint = read_checkpoint(path)
    if stored := evaluation_settings({"data": checkpoint.get(SETTINGS_KEY)}):
        return ["--config", yaml.safe_dump(stored)]
    if (card := card_from_state(checkpoint, path)) and card.dataset:
        return ["--config", yaml.safe_dump({"data": {"dataset": card.dataset}})]
    raise UserError(
        f"{path} does not say on which data set it was trained: name one with --data.dataset and --data.root, or use "
        "Trainer.test with your own loaders"
    )


def config_option(folder: Path) -> list[str]:
    """Make the option that reads the configuration of the run in a folder, translated if it has old names."""
    path = folder / "config.yaml"
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        content = None  # the parser reports the error
    if isinstance(content, dict) and (renamed := rename_settings(content)) != content:
        return ["--config", yaml.safe_dump(renamed)]
    return ["--config", str(path)]


def _section(config: Mapping[str, Any], name: str, names: tuple[str, ...]) -> dict[str, Any]:
    section = config.get(name)
    return {each: section[each] for each in names if each in section} if isinstance(section, Mapping) else {}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _is_device_name(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(each) is int for each in value)
    return type(value) is int or (isinstance(value, str) and DEVICE_NAME.fullmatch(value) is not None)
