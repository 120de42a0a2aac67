"""Lock of a run's folder: two processes that train the same run would write into the same files."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vit_attn.console import CONSOLE
from vit_attn.errors import UserError

LOCK_FILE = ".lock"
WAIT_SECONDS = 60.0
"""Time for the rest of a killed process, such as its workers, to end."""


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock the folder of a run; the operating system releases the lock when this process ends in any way.

    On file systems without locks, nothing is locked.

    Args:
        folder: Folder of the run, which is created if necessary.

    Raises:
        UserError: If another process holds the lock.
    """
    lock, created = FileLock(folder / LOCK_FILE), [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout):
            raise UserError(
                f"another process is training the run {folder}: let it end, or stop it, before resuming the run"
            ) from error
        yield  # a folder that cannot be written to is reported where files are written
        return
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
            for each in created:  # a refused run leaves no empty folders
                each.rmdir()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        CONSOLE.say(
            f"vit-attn: {folder} is locked by another process: waiting up to {WAIT_SECONDS:g} s for it to end",
            sys.stderr,
        )
        lock.acquire(timeout=WAIT_SECONDS)
