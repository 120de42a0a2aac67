"""A terminal for tests: a pseudo-terminal that takes the place of the output, and what remains on its screen."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


class Screen:
    """Lines of a terminal after what was written to it, as far as progress bars control it.

    Args:
        columns: Columns of a line.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.rows, self.row, self.column = columns, [""], 0, 0

    def feed(self, text: str) -> None:
        """Write text with the controls for line starts, line ends, upward moves and erased lines; colours are dropped.

        Raises:
            ValueError: If there is another control.
        """
        for found in CONTROL.finditer(text):
            if found[2]:
                self._control(found[1], found[2])
            elif found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self._down()
            else:
                for character in found[0]:
                    self._put(character)

    def lines(self) -> list[str]:
        """Return the lines without spaces at their ends."""
        return [row.rstrip() for row in self.rows]

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif letter == "K":
            self.rows[self.row] = "" if numbers == "2" else self.rows[self.row][: self.column]
        elif letter not in "mhl":
            raise ValueError(f"unknown control {numbers}{letter}")

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self._down()
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        self.rows += [""] * (self.row + 1 - len(self.rows))


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[Screen]:
    """Put a terminal in the place of standard output and standard error; its screen is complete at the end."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    received: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(parent, 65536):
                received.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    screen = Screen(columns)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    with open(child, "w", buffering=1, encoding="utf-8") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        patched.setattr(sys, "stderr", stream)
        yield screen
    reader.join()
    os.close(parent)
    screen.feed(b"".join(received).decode())
