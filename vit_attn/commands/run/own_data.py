"""Data module of one's own in the options and files of a command, whose arguments then are those of ``--data``.

Lightning's command line takes any class by a mode of its own, in which ``--data.root`` would be
``--data.init_args.root``. Here the class is found before the parser is made, which then takes its arguments.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from vit_attn.commands.parsing.own_data import CLASS_PATH, INIT_ARGS, is_class_path, split_option
from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.console import CONSOLE
from vit_attn.data import ImageData
from vit_attn.errors import UserError, did_you_mean
from vit_attn.parts import import_part, imported_parts

LOADERS = ("train_dataloader", "val_dataloader")
IMPORT = "import"
"""Setting of a configuration file with the modules to import."""


@dataclass(frozen=True)
class ChosenData:
    """Data module of a command.

    Args:
        kind: Its class.
        options: Options of the command, in which the arguments of the class follow ``--data.``.
    """

    kind: type[L.LightningDataModule]
    options: list[str]

    @property
    def class_path(self) -> str | None:
        """Path of the class; None for ``ImageData``."""
        return None if self.kind is ImageData else f"{self.kind.__module__}.{self.kind.__qualname__}"


@dataclass
class _Settings:
    """Options without the class of the data module, with the files that were read."""

    class_path: str | None = None
    asker: str = "--data"
    options: list[str | tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Options; a configuration file that was read is its path and content."""


def choose_data(options: Sequence[str]) -> ChosenData:
    """Import the modules that configuration files name, and find the class of the data module.

    Args:
        options: Options of one of Lightning's commands.

    Raises:
        UserError: If a module cannot be imported, or if the class is no data module with loaders.
    """
    settings = _read(options)
    kind = ImageData if settings.class_path is None else load_data_class(settings.class_path, settings.asker)
    chosen: list[str] = []
    for option in settings.options:
        chosen += [option] if isinstance(option, str) else ["--config", _as_text(*option, kind)]
    if modules := imported_parts():
        chosen.append(f"--{IMPORT}={list(modules)}")
    return ChosenData(kind, chosen)


def load_data_class(path: str, asker: str = "--data") -> type[L.LightningDataModule]:
    """Load the class of a data module.

    Args:
        path: Module and name of the class, with a dot between.
        asker: Option or file that names it, for messages.

    Raises:
        UserError: If there is no such class, or if it is no data module or has no loaders.
    """
    module_name, _, name = path.rpartition(".")
    import_part(module_name, asker)
    module = importlib.import_module(module_name)
    kind = getattr(module, name, None)
    if kind is None:
        classes = [each for each, value in vars(module).items() if inspect.isclass(value)]
        raise UserError(f"{asker}: {module_name} has no {name!r}{did_you_mean(name, classes)}")
    if not (inspect.isclass(kind) and issubclass(kind, L.LightningDataModule)):
        raise UserError(f"{asker}: {path} must be a subclass of LightningDataModule, and it is {_described(kind)}")
    missing = [each for each in LOADERS if getattr(kind, each) is getattr(L.LightningDataModule, each)]
    if missing:
        raise UserError(f"{asker}: {path} has no {' and no '.join(missing)}, which a data module needs to train on")
    return kind


def with_class_path(settings: Mapping[str, Any], class_path: str | None) -> dict[str, Any]:
    """Return the settings of a run as a file has them: the arguments of a class of one's own are its ``init_args``.

    Args:
        settings: Settings with the arguments right in ``data``.
        class_path: Path of the class; None for ``ImageData``.
    """
    if class_path is None:
        return dict(settings)
    return {**settings, "data": {"class_path": class_path, "init_args": settings.get("data") or {}}}


def _read(options: Sequence[str]) -> _Settings:
    """Take the class of the data module out of the options and their files, and import the files' modules."""
    settings, position = _Settings(), 0
    while position < len(options):
        name, value, taken = split_option(options, position)
        if name in ("-c", "config") and value is not None:
            content = _content(value)
            settings.options += [(value, content)] if content else options[position : position + taken]
            _read_content(settings, value, content)
        elif name == CLASS_PATH or (name == "data" and is_class_path(value)):
            settings.class_path, settings.asker = value, f"--{name}"
        elif name.startswith(INIT_ARGS):
            settings.options.append(f"--data.{options[position].partition(INIT_ARGS)[2]}")
            settings.options += options[position + 1 : position + taken] if "=" not in options[position] else []
        else:
            settings.options.append(options[position])
            taken = 1
        position += taken
    return settings


def _read_content(settings: _Settings, where: str, content: Mapping[str, Any]) -> None:
    """Read which modules and which class a configuration file names."""
    asker = where if "\n" not in where else "config.yaml"
    modules = content.get(IMPORT) or []
    for module in [modules] if isinstance(modules, str) else modules if isinstance(modules, list) else []:
        import_part(str(module), asker)
    data = content.get("data")
    named = data.get("class_path") if isinstance(data, Mapping) else data
    if isinstance(named, str) and (is_class_path(named) or isinstance(data, Mapping)):
        settings.class_path, settings.asker = named, asker


def _content(value: str) -> dict[str, Any]:
    """Read a configuration if it concerns modules or a data module; else the parser reads it, and reports errors."""
    try:
        text = value if "\n" in value else Path(value).read_text(encoding="utf-8")
        content = load_yaml(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) and {"data", IMPORT} & content.keys() else {}


def _as_text(where: str, content: dict[str, Any], kind: type) -> str:
    """Return a configuration with the arguments of the chosen class right in ``data``; its path if nothing changes."""
    data = content.get("data")
    named = data.get("class_path") if isinstance(data, Mapping) else data if is_class_path(data) else None
    if named is None and kind is ImageData:
        return where
    arguments = dict(data.get("init_args") or {}) if isinstance(data, Mapping) and named else data
    arguments = {} if named and not isinstance(data, Mapping) else arguments
    is_of_kind = isinstance(named, str) and named.rpartition(".")[2] == kind.__name__
    if isinstance(arguments, Mapping) and not is_of_kind:
        accepted = inspect.signature(kind).parameters
        if others := [name for name in arguments if name not in accepted]:
            file = where if "\n" not in where else "the configuration"
            CONSOLE.say(
                f"vit-attn: {file}: left out, as {kind.__name__} does not take them: data.{', data.'.join(others)}",
                sys.stderr,
            )
        arguments = {name: value for name, value in arguments.items() if name in accepted}
    return yaml.safe_dump({**content, "data": arguments}, sort_keys=False)


def _described(kind: object) -> str:
    return f"the class {kind.__name__}" if inspect.isclass(kind) else f"a {type(kind).__name__}"
