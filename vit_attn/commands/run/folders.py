"""Folders of runs: a new one for each, and the one to go on with."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.commands.run import slurm
from vit_attn.errors import UserError

LAST = Path("checkpoints", "last.ckpt")
"""Where a run keeps its last state, from its folder."""
DEFAULTS = {"name": "vit", "runs": "runs"}


def new_folder(runs: str, name: str) -> Path:
    """A folder that no other run has: its date and time, the SLURM job, and something random.

    Raises:
        UserError: If it would not be on a disk of this machine.
    """
    if "://" in runs:
        raise UserError(f"--runs must be a folder, got {runs}: event files and checkpoints are written to a disk")
    job = slurm.job_id()
    end = f"job{job}-{secrets.token_hex(2)}" if job else secrets.token_hex(2)
    return Path(runs, name, f"{datetime.now():%Y%m%d-%H%M%S}-{end}")


def find_run(which: str, options: Sequence[str]) -> Path | None:
    """The folder of the run to go on with.

    Args:
        which: The folder of a run or its ``last.ckpt``; ``last``, the one of its name that wrote its state last;
            ``auto``, the same, or none where there is none yet.
        options: The command's options, which may name the run's ``name`` and the folder of all ``runs``.

    Raises:
        UserError: If there is no such run, or if it has not written its state.
    """
    if which not in ("last", "auto"):
        return _checked(Path(which))
    asked = _asked(options)
    parent = Path(asked["runs"], asked["name"])
    if found := list(parent.glob(f"*/{LAST.as_posix()}")):
        return max(found, key=lambda path: path.stat().st_mtime_ns).parent.parent
    if which == "auto":
        return None
    raise UserError(f"no run in {parent} has written its state: --resume names its folder, --name and --runs its place")


def find_run_of_job(options: Sequence[str], command_of: Any) -> Path | None:
    """The run that this SLURM job began before it was queued again; one job may train several, by other options.

    Args:
        options: The command's options.
        command_of: Tells with what options the run of a ``last.ckpt`` was begun.
    """
    asked = _asked(options)
    paths = Path(asked["runs"], asked["name"]).glob(f"*-job{slurm.job_id()}-*/{LAST.as_posix()}")
    own = [path.parent.parent for path in sorted(paths) if command_of(path) == list(options)]
    return own[-1] if own else None


def _checked(path: Path) -> Path:
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not folder.is_dir():
        raise UserError(f"no such run: {path}; --resume takes the folder of a run, or last for the newest")
    if not (folder / "config.yaml").is_file():
        inside = sorted(each.parent.name for each in folder.glob("*/config.yaml"))
        hint = f"; it holds runs, the newest of them {folder / inside[-1]}" if inside else ""
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml{hint}")
    if not (folder / LAST).is_file():
        raise UserError(
            f"{folder} has no {LAST}: it ended before its state was written; begin anew with -c {folder}/config.yaml"
        )
    return folder


def _asked(options: Sequence[str]) -> dict[str, str]:
    """Name and folder of the run as options and configuration files say, the last one first."""
    values: dict[str, str] = {}
    for option, value in _pairs(options):
        if option in ("-c", "--config"):
            values |= _of_file(Path(value))
        elif option.removeprefix("--") in DEFAULTS:
            values[option.removeprefix("--")] = value
    return DEFAULTS | values


def _of_file(path: Path) -> dict[str, str]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # the parser says what is wrong with it
    known = content if isinstance(content, dict) else {}
    return {name: str(known[name]) for name in DEFAULTS if name in known}


def _pairs(options: Sequence[str]) -> list[tuple[str, str]]:
    """Options with their values, which follow after ``=`` or as the next word."""
    pairs = []
    for position, option in enumerate(options):
        name, given, value = option.partition("=")
        if name.startswith("-"):
            pairs.append((name, value if given else (*options, "")[position + 1]))
    return pairs
