"""Log of a run, ``train.log``: what the terminal says, line by line, without control characters."""

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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: TextIO | None = None

    def __enter__(self) -> "RunLog":
        """Begin to write; a file that cannot be written is reported, and the run goes on without it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            CONSOLE.say(f"warning: {self.path} could not be written: {error.strerror}; the training goes on")
            return self
        CONSOLE.listeners.append(self.write)
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        """Write the error that ended the run, if there is one, and end."""
        if self.write in CONSOLE.listeners:
            CONSOLE.listeners.remove(self.write)
        if error is not None:
            for line in f"{type(error).__name__}: {error}".split("\n"):
                self.write(line)
        if self.file is not None:
            self.file.close()
            self.file = None

    def write(self, line: str) -> None:
        """Write a line, unless it is empty."""
        if self.file is None or not line.strip():
            return
        try:
            self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {printable(line.rstrip())}\n")
            self.file.flush()
        except OSError:  # the disk is full: what is said is not worth the run
            self.file = None
