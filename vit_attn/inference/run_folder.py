"""Checkpoint of a run, by its folder or by a folder of runs."""

import sys
from collections.abc import Iterator
from pathlib import Path

from vit_attn.errors import one_line

CHECKPOINTS = ("best.ckpt", "last.ckpt")
"""Checkpoints of a run, the one that is taken first."""
DEPTH = 3
"""Folders below each other in which runs are looked for, as runs/NAME/RUN has two."""


def find_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint of a run: its best, else its last; of a folder of runs that of the newest.

    The newest run is the one whose checkpoints were written last; one line of output names it.

    Args:
        folder: Folder of a run, or one that holds such folders.

    Returns:
        The checkpoint; None if there is none.
    """
    if own := _checkpoint_of(folder):
        return own
    runs = list(_runs_below(folder, DEPTH))
    if not runs:
        return None
    newest = max(runs, key=_written)
    found = _checkpoint_of(newest)
    others = f", the newest of {len(runs):,} runs" if len(runs) > 1 else ""
    sys.stdout.write(one_line(f"{folder}: {found}{others}") + "\n")
    return found


def _checkpoint_of(run: Path) -> Path | None:
    """Find the checkpoint of a run; of a run of Lightning's own, with other names, the one that was written last."""
    folder = run / "checkpoints"
    if named := next((path for name in CHECKPOINTS if (path := folder / name).is_file()), None):
        return named
    return max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _written(run: Path) -> int:
    """Time at which a checkpoint of a run was written last."""
    return max(path.stat().st_mtime_ns for path in (run / "checkpoints").glob("*.ckpt"))


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    for each in sorted(folder.iterdir()):
        if not each.is_dir():
            continue
        if _checkpoint_of(each):
            yield each
        elif depth > 1:
            yield from _runs_below(each, depth - 1)
