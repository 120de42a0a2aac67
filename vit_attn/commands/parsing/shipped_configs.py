"""Configuration files that come with the package, found by name: ``-c quickstart``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vit_attn.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parents[2]
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
"""Folder of the installed package, and that of the repository, from which the first one is made."""
CONFIG_OPTIONS = ("-c", "--config")
BARE_NAME = re.compile(r"[\w-]+")


def find_shipped(folders: Sequence[Path] = FOLDERS) -> dict[str, Path]:
    """List the configuration files that come with the package, by name.

    Args:
        folders: Folders that may hold them; the first that exists does.
    """
    folder = next(filter(Path.is_dir, folders), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def resolve_shipped(options: Sequence[str]) -> list[str]:
    """Replace names of shipped configuration files by their paths; a file that exists under that name wins.

    Args:
        options: Arguments of a command. ``-c quickstart``, ``-c quickstart.yaml`` and ``-c configs/quickstart.yaml``
            name the same shipped file, so that the commands of the documentation work from any folder.

    Raises:
        UserError: For a bare name that is neither a file nor a shipped one.
    """
    shipped, resolved = find_shipped(), list(options)
    for position, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name not in CONFIG_OPTIONS:
            continue
        if equals:
            resolved[position] = f"{name}={_resolve(value, shipped)}"
        elif position + 1 < len(options):
            resolved[position + 1] = _resolve(options[position + 1], shipped)
    return resolved


def check_configs(options: Sequence[str]) -> None:
    """Refuse files of settings that are not YAML, by name and line.

    Args:
        options: Arguments of a command; files that are not there or no text are left to the parser.

    Raises:
        UserError: If a file is not YAML.
    """
    import yaml  # help needs neither of the two, which take 0.1 s

    from vit_attn.commands.parsing.yaml_limits import LimitError, check_limits

    for position, option in enumerate(options):
        name, equals, value = option.partition("=")
        path = Path(value if equals else "".join(options[position + 1 : position + 2]))
        if name not in CONFIG_OPTIONS or not path.is_file():
            continue
        try:
            check_limits(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, LimitError):
            continue
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise UserError(f"{path}{line} is not YAML: {error.problem}") from error


def _resolve(value: str, shipped: Mapping[str, Path]) -> str:
    path = Path(value)
    if path.is_file():
        return value
    if path.suffix in ("", ".yaml") and path.parent in (Path(), Path("configs")) and path.stem in shipped:
        return str(shipped[path.stem])
    if BARE_NAME.fullmatch(value) and not path.exists():
        hint = did_you_mean(value, shipped)
        raise UserError(f"no configuration {value!r}{hint}; shipped are {', '.join(shipped)}, and files end in .yaml")
    return value
