"""Log of a run, ``train.log``: what the terminal says, line by line, without control characters."""

import contextlib
import time
from pathlib import Path
from typing import TextIO

from vit_attn.console import CONSOLE
from vit_attn.errors import printable

FILE_NAME = "train.log"


class RunLog:
    """Writes what the console says to a file while it is open, each line with its time; continues an existing file.

    Args:
        path: The file.
        awaited: File that a run writes when it begins. Lines wait for it, so that a run that is refused leaves nothing.
    """

    def __init__(self, path: Path, awaited: Path) -> None:
        self.path, self.awaited = path, awaited
        self.waiting: list[str] = []
        self.file: TextIO | None = None

    def __enter__(self) -> "RunLog":
        """Begin to listen to the console."""
        CONSOLE.listeners.append(self.write)
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        """Write the error that ended the run, if there is one, and end."""
        if error is not None:
            for line in f"{type(error).__name__}: {error}".split("\n"):
                self.write(line)
        self._end()

    def write(self, line: str) -> None:
        """Write a line, unless it is empty; a file that cannot be written is reported, and the run goes on without."""
        if line.strip():
            self.waiting.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {printable(line.rstrip())}\n")
        if not self.awaited.exists():
            return
        try:
            if self.file is None:
                self.file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
            self.file.writelines(self.waiting)
            self.file.flush()
        except OSError as error:
            self._end()
            CONSOLE.say(f"warning: {self.path} could not be written: {error.strerror}; the training goes on")
        self.waiting = []

    def _end(self) -> None:
        """Listen no longer, and close the file."""
        if self.write in CONSOLE.listeners:
            CONSOLE.listeners.remove(self.write)
        if self.file is not None:
            with contextlib.suppress(OSError):  # of a full disk
                self.file.close()
            self.file = None
