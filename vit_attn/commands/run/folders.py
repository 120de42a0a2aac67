"""Folders of runs: a new one, the one to resume, and the one of a requeued SLURM job."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import yaml

from vit_attn.checkpoints.paths import find_checkpoint, weights_file
from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.commands.run import slurm
from vit_attn.errors import UserError, path_hint

LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
"""Path of the last state within the folder of a run."""
CONFIG = "config.yaml"
"""Settings of a run in its folder."""
DEFAULTS = {"name": "vit", "runs": "runs"}


def new_run_folder(runs: str, name: str) -> Path:
    """Make the path of a new run from date and time, the SLURM job, and a random part.

    Args:
        runs: Folder of all runs.
        name: Name of the run.

    Raises:
        UserError: If ``runs`` is not on a disk of this machine.
    """
    if "://" in runs:
        raise UserError(f"--runs must be a folder, got {runs}: event files and checkpoints are written to a disk")
    job = slurm.job_id()
    suffix = f"job{job}-{secrets.token_hex(2)}" if job else secrets.token_hex(2)
    return Path(runs, name, f"{datetime.now():%Y%m%d-%H%M%S}-{suffix}")


def find_run(run: str, options: Sequence[str]) -> Path | None:
    """Find the folder of the run to resume.

    Args:
        run: Value of ``--resume``: the folder of a run, its folder of checkpoints or one of these; a folder of runs,
            for the newest, which one line names; ``last`` for the run of the name that wrote its state most recently;
            ``auto`` for the same, or for a new run if there is none yet.
        options: Options of the command, which may have the run's ``name`` and the folder of all ``runs``.

    Raises:
        UserError: If there is no such run, or if it has not written its state.
    """
    if run not in ("last", "auto"):
        return _check_resumable(Path(run))
    parent = _parent_folder(options)
    if found := list(parent.glob(f"*/{LAST_CHECKPOINT.as_posix()}")):
        return max(found, key=lambda path: path.stat().st_mtime_ns).parent.parent
    if run == "auto":
        return None
    raise UserError(
        f"no run in {parent} has written its state: --resume takes the folder of a run, or --name and --runs name it"
    )


def find_requeued_run(options: Sequence[str], original_options: Callable[[Path], list[str] | None]) -> Path | None:
    """Find the run that this SLURM job started with the same options before it was requeued; a job may train several.

    Args:
        options: Options of the command.
        original_options: Function that reads from a ``last.ckpt`` the options that its run was started with.
    """
    paths = _parent_folder(options).glob(f"*-job{slurm.job_id()}-*/{LAST_CHECKPOINT.as_posix()}")
    matching = [path.parent.parent for path in sorted(paths) if original_options(path) == list(options)]
    return matching[-1] if matching else None


def _check_resumable(path: Path) -> Path:
    if not path.exists():
        hint = path_hint(path) or "; --resume takes the folder of a run, or last for the newest"
        raise UserError(f"no such run: {path}{hint}")
    if path.is_file():
        folder = path.parent if (path.parent / CONFIG).is_file() else path.parent.parent
    elif (path / CONFIG).is_file():
        folder = path
    else:
        found = find_checkpoint(path, [LAST_CHECKPOINT.name])
        folder = found.parent.parent if found else path
    if not (folder / CONFIG).is_file():
        start = f": to start from it, --model.weights={path}" if weights_file(path) else f": it has no {CONFIG}"
        raise UserError(f"{path} is not the folder of a run{start}")
    if not (folder / LAST_CHECKPOINT).is_file():
        raise UserError(
            f"{folder} has no {LAST_CHECKPOINT}: it ended before its state was written; start again with -c "
            f"{folder / CONFIG}"
        )
    return folder


def _parent_folder(options: Sequence[str]) -> Path:
    """Folder of the runs of one name, from options and configuration files, of which the last one counts."""
    values = dict(DEFAULTS)
    for option, value in _split_values(options):
        if option in ("-c", "--config"):
            values |= _read_defaults(Path(value))
        elif option.removeprefix("--") in DEFAULTS:
            values[option.removeprefix("--")] = value
    return Path(values["runs"], values["name"])


def _read_defaults(path: Path) -> dict[str, str]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # the parser reports the error
    known = content if isinstance(content, dict) else {}
    return {name: str(known[name]) for name in DEFAULTS if name in known}


def _split_values(options: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each option with its value, which follows after ``=`` or as the next argument."""
    pairs = []
    for position, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name.startswith("-"):
            pairs.append((name, value if equals else (*options, "")[position + 1]))
    return pairs
