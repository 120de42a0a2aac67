"""Modules of the user's own parts that a checkpoint or an export needs: what is stored, and their import from it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, one_line
from vit_attn.model.scores import AFFINITIES
from vit_attn.parts import NAME, import_part, imported_parts

PARTS_KEY = "parts"
"""Key of a checkpoint for the names of modules, each with the parts that are used of it."""
MOST = 32
"""Modules that a file can name at most."""
LIBRARIES = ("vit_attn", "timm", "torch", "lightning", "__main__")
"""Packages whose parts are always there, and scripts, which cannot be imported."""
NETWORK, SCORE = "network", "score function"
IS_HERE = {NETWORK: timm.is_model, SCORE: AFFINITIES.__contains__}
"""Kinds of parts without which no network is built, and their tests."""

Parts = dict[str, list[str]]


def parts_of(arch: str | None, arch_options: Mapping[str, Any] | None, data: Any = None) -> Parts:
    """List the modules that a network and its data need: those that were imported for it, and those of its parts.

    Args:
        arch: Name of the network in timm's registry.
        arch_options: Its arguments.
        data: Data module, if there is one; its ``own_parts`` are modules of further parts by what they are.

    Returns:
        Modules, each with what is used of it.
    """
    name = (arch or "").partition(".")[0]
    affinity = (arch_options or {}).get("affinity")
    kind = type(data)
    used = dict(
        getattr(data, "own_parts", {f"data module {kind.__name__}": kind.__module__} if data is not None else {})
    )
    if timm.is_model(name):
        used[f"{NETWORK} {name}"] = timm.model_entrypoint(name).__module__
    if affinity in AFFINITIES:
        used[f"{SCORE} {affinity}"] = AFFINITIES[affinity].__module__
    parts: Parts = {each: [] for each in imported_parts()}
    for part, module in used.items():
        if module.partition(".")[0] not in LIBRARIES:
            parts.setdefault(_importer(module, parts), []).append(part)
    return parts


def import_stored_parts(stored: Any, path: str | Path) -> Parts:
    """Import the modules that a file says it needs.

    Args:
        stored: What the file has of them; None for files of earlier versions, and for networks without own parts.
        path: The file, for messages.

    Returns:
        The modules, each with what is used of it.

    Raises:
        UserError: If what is stored is no such list, or if a module that the network needs is missing, fails, or
            no longer has what was used of it.
    """
    if stored is None:
        return {}
    parts = _checked(stored, path)
    for name, used in parts.items():
        try:
            import_part(name, str(path))
        except UserError as error:
            if missing := [each for each in used if not _is_here(each)]:
                raise UserError(
                    f"{error}; it is needed for the {', the '.join(missing)}; another module that has it can be named "
                    "with --import"
                ) from error
            CONSOLE.say(f"vit-attn: {one_line(error)}", sys.stderr)
            continue
        if missing := [each for each in used if not _is_here(each)]:
            raise UserError(
                f"{path} needs the {', the '.join(missing)}, and the module {name}, which had it, no longer has it; "
                "another module that has it can be named with --import"
            )
    return parts


def _importer(module: str, parts: Parts) -> str:
    """Return the imported module that brings along the one in which a part is defined."""
    top = module.partition(".")[0]
    close = [name for name in parts if module == name] or [name for name in parts if name.partition(".")[0] == top]
    return (close or [module])[0]


def _is_here(part: str) -> bool:
    kind = next((each for each in IS_HERE if part.startswith(f"{each} ")), None)
    return kind is None or IS_HERE[kind](part.removeprefix(f"{kind} "))


def _checked(stored: Any, path: str | Path) -> Parts:
    valid = isinstance(stored, Mapping) and len(stored) <= MOST
    for name, used in stored.items() if valid else ():
        valid = valid and isinstance(name, str) and NAME.fullmatch(name) is not None
        valid = valid and isinstance(used, list) and all(isinstance(each, str) and len(each) < 300 for each in used)
    if not valid:
        raise UserError(f"{path}: {PARTS_KEY} must be names of modules with their parts, got {stored!r:.120}")
    return {name: list(used) for name, used in stored.items()}
