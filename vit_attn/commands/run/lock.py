"""One process at a time trains a run: a second one that goes on with it would write into the same files."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vit_attn.errors import UserError

LOCK = ".lock"
WAIT = 60.0
"""Seconds for what is left of a process that was killed, such as its workers, to end."""


@contextlib.contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Hold the folder of a run; the system lets go of it when this process ends, however it ends.

    Where the file system knows no locks, nothing is held.

    Args:
        folder: Of the run; it is made if it is not there.

    Raises:
        UserError: If another process holds it.
    """
    lock, made = FileLock(folder / LOCK), [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout):
            raise UserError(
                f"another process is training the run {folder}: let it end, or stop it, before going on with it"
            ) from error
        yield  # what cannot be written to is told by what writes there
        return
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
            for each in made:  # of a run that was refused nothing is left
                each.rmdir()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"vit-attn: {folder} is held by another process: waiting up to {WAIT:g} s for it to end\n")
        lock.acquire(timeout=WAIT)
