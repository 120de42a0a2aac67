"""Log of a run, ``train.log``: what the terminal says, line by line, without control characters."""

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from vit_attn.errors import printable

FILE_NAME = "train.log"
PRINTED = "vit_attn.printed"
LOGGERS = ("lightning.pytorch", "lightning.fabric", PRINTED)
"""Python's loggers whose messages the terminal shows; the last is for text that is printed in another way."""

_printed = logging.getLogger(PRINTED)
_printed.setLevel(logging.INFO)
_printed.propagate = False
_printed.addHandler(logging.NullHandler())


def note(text: str) -> None:
    """Write a text that was printed to the log of the run, if one is open."""
    _printed.info("%s", text)


class RunLog(logging.Handler):
    """Writes messages and warnings to a file while it is open, each with its time, and continues an existing file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.file: TextIO | None = None
        self.show_warning: Callable[..., Any] | None = None

    def __enter__(self) -> "RunLog":
        """Begin to write; a file that cannot be written is reported, and the run goes on without it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            warnings.warn(f"{self.path} could not be written: {error.strerror}", stacklevel=2)
            return self
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        self.show_warning, warnings.showwarning = warnings.showwarning, self._warn
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        """Write the error that ended the run, if there is one, and end."""
        if error is not None:
            self.write(f"{type(error).__name__}: {error}")
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        self.write(record.getMessage())

    def write(self, text: str) -> None:
        """Write each line of a text."""
        if self.file is None:
            return
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = [line.rstrip() for line in text.split("\n") if line.strip()]
        try:
            self.file.writelines(f"{moment}  {printable(line)}\n" for line in lines)
            self.file.flush()
        except OSError:  # the disk is full: what is said is not worth the run
            self.file = None

    def close(self) -> None:
        """End, and leave loggers and warnings as they were."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
        if self.show_warning is not None:
            warnings.showwarning, self.show_warning = self.show_warning, None
        if self.file is not None:
            self.file.close()
            self.file = None
        super().close()

    def _warn(self, message: Warning | str, *args: Any, **options: Any) -> None:
        self.write(f"warning: {message}")
        if self.show_warning is not None:
            self.show_warning(message, *args, **options)
