"""Paths of trained networks: a checkpoint, an export, the folder of a run, or a folder of runs; free of torch."""

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_attn.errors import one_line, path_hint

CHECKPOINTS = ("best.ckpt", "last.ckpt")
"""Checkpoints of a run, the one that is taken first."""
CHECKPOINTS_FOLDER = "checkpoints"
DEPTH = 3
"""Folders below each other in which runs are looked for, as runs/NAME/RUN has two."""
FOLDER_WEIGHTS = "model.safetensors"
"""Weights in a folder of ``vit-attn export`` or of timm's ``save_for_hf``."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of common pictures."""
SUFFIXES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin", ".npz", ".tar")
"""Endings of files of weights, by which a path to one is known even if there is none."""


def weights_file(source: str | Path) -> Path | None:
    """Find the file of weights at a path; None if there is none.

    Args:
        source: A file, which is taken as it is; a folder of an export, for its ``model.safetensors``; a folder of a
            run, of its checkpoints, or of runs, as :func:`find_checkpoint` takes it; or anything else that names
            weights.
    """
    path = Path(source)
    if source == "" or not path.is_dir():
        return path if path.is_file() else None
    exported = path / FOLDER_WEIGHTS
    return exported if exported.is_file() else find_checkpoint(path)


def find_checkpoint(folder: Path, names: Sequence[str] = CHECKPOINTS) -> Path | None:
    """Find the checkpoint of a run: its best, else its last; of a folder of runs that of the newest.

    The newest run is the one whose checkpoints were written last; one line of output names it.

    Args:
        folder: Folder of a run, its folder of checkpoints, or a folder that holds runs.
        names: Files that are taken, the first before the others.

    Returns:
        The checkpoint; None if there is none.
    """
    if own := _checkpoint_of(folder, names):
        return own
    runs = list(_runs_below(folder, DEPTH, names))
    if not runs:
        return None
    newest = max(runs, key=_written)
    found = _checkpoint_of(newest, names)
    others = f", the newest of {len(runs):,} runs" if len(runs) > 1 else ""
    _announce(f"{folder}: {found}{others}")
    return found


def is_run(source: str) -> bool:
    """Tell whether a text names a run: a checkpoint in the folder of one, which has a ``config.yaml``, or a folder."""
    path = Path(source)
    found = weights_file(path) if path.exists() else None
    return found is not None and (found.parent.parent / "config.yaml").is_file()


def looks_like_path(source: str) -> bool:
    """Tell whether a text names a file or a folder, be it there or not, rather than a network.

    >>> looks_like_path("runs/vit"), looks_like_path("best.ckpt"), looks_like_path("vit_tiny_patch16_224")
    (True, True, False)
    """
    return source.startswith((".", "~", "/")) or source.endswith((*SUFFIXES, "/")) or _is_below_folder(source)


def describe_missing(source: str | Path) -> str:
    """Describe a path at which there is no trained network, and what to name instead."""
    path = Path(source)
    if not path.is_dir():
        return f"checkpoint not found: {source}{path_hint(path)}"
    inside = sorted(each.name for each in path.glob("*.ckpt"))
    if inside:
        return f"{source} has no {' or '.join(CHECKPOINTS)}: name one of its files, such as {path / inside[0]}"
    holds = "" if any(path.iterdir()) else ": it is empty"
    return f"{source} is a folder without a checkpoint{holds}; name the folder of a run, runs/NAME/RUN, or a file"


def kind_hint(path: Path) -> str:
    """Name the option for a file that is no checkpoint, by its ending, as a hint to append to an error about it."""
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return ": it is a file of settings, which -c takes"
    if "tfevents" in path.name:
        return ": it is a log for TensorBoard; name the run's folder"
    if suffix in PICTURES:
        return ": it is a picture, which --images takes"
    if suffix in (".onnx", ".pt2"):
        return ": it is an export for other programs; name the run, or an export to .safetensors or a folder"
    return ""


def _is_below_folder(source: str) -> bool:
    """Tell whether a text has the separator of folders, and its first folder is there or its second is none."""
    first, separator, rest = source.replace("\\", "/").partition("/")
    return bool(separator) and (Path(first).is_dir() or "/" in rest or first in ("runs", CHECKPOINTS_FOLDER))


@functools.cache
def _announce(text: str) -> None:
    """Print which run was taken, once a process."""
    sys.stdout.write(one_line(text) + "\n")


def _checkpoint_of(run: Path, names: Sequence[str]) -> Path | None:
    """Find the checkpoint of a run; of a run of Lightning's own, with other names, the one that was written last."""
    folder = run if run.name == CHECKPOINTS_FOLDER else run / CHECKPOINTS_FOLDER
    if named := next((path for name in names if (path := folder / name).is_file()), None):
        return named
    return max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _written(run: Path) -> int:
    """Time at which a checkpoint of a run was written last."""
    return max(path.stat().st_mtime_ns for path in (run / CHECKPOINTS_FOLDER).glob("*.ckpt"))


def _runs_below(folder: Path, depth: int, names: Sequence[str]) -> Iterator[Path]:
    for each in sorted(folder.iterdir()):
        if not each.is_dir():
            continue
        if _checkpoint_of(each, names):
            yield each
        elif depth > 1:
            yield from _runs_below(each, depth - 1, names)
