"""Atomic writing of files: complete, or as they were before."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written; the next write to the same name replaces it."""
REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EIO: "the disk reports an error",
}


_pending: set[Path] = set()
"""Files that are being written by this process."""


class WriteError(OSError):
    """File that could not be written; its previous content is kept. The command line prints it as one line."""


@contextlib.contextmanager
def whole_file(path: Path, what: str = "file") -> Iterator[BinaryIO]:
    """Open a binary file for atomic writing.

    It is written beside its target, flushed to the disk with its folder, and renamed: after a kill or a power cut, and
    to any reader, the file has the old content or the new one. If the block fails, the old content stays.

    Args:
        path: The file.
        what: Kind of file, for messages.

    Raises:
        WriteError: If it cannot be written; the message names the file, the reason and the disk.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    created = [each for each in path.parents if not each.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in created:
            sync_folder(folder.parent)
        _pending.add(unfinished)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if cause := _system_error(error):
            raise WriteError(f"{what} {path} could not be written: {_reason(cause)} ({disk_of(path)})") from error
        raise
    finally:
        _pending.discard(unfinished)


def remove_pending() -> None:
    """Remove the unfinished files of this process, before it ends at once."""
    for path in tuple(_pending):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, where the system supports it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_of(path: Path) -> str:
    """Describe the disk of a file or folder: mount point, and free space."""
    folder = next(each for each in (path, *path.absolute().parents) if each.exists()).absolute()
    usage = shutil.disk_usage(folder)
    while folder != folder.parent and not os.path.ismount(folder):
        folder = folder.parent
    return f"disk {folder}, {usage.free / 1e9:.2f} of {usage.total / 1e9:.2f} GB free"


def check_folder(folder: Path, needed: int) -> None:
    """Check that files can be written to a folder, before work is done that would be lost.

    Args:
        folder: The folder; it is created if it does not exist.
        needed: Bytes that must be free.

    Raises:
        WriteError: If the folder cannot be made or written to, or if its disk has less space.
    """
    trial = folder / ("trial" + UNFINISHED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"\0" * 4096)
        trial.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
        raise WriteError(f"folder {folder} cannot be written to: {_reason(error)} ({disk_of(folder)})") from error
    if free < needed:
        raise WriteError(
            f"folder {folder} has too little room: checkpoints need {needed / 1e9:.2f} GB ({disk_of(folder)})"
        )


def _system_error(error: BaseException) -> OSError | None:
    """Find the operating system's error behind an error; torch raises a RuntimeError for one of its writer."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, WriteError):
            return None
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _reason(error: OSError) -> str:
    return REASONS.get(error.errno or 0) or error.strerror or str(error)
