"""Lines for the user: above the progress bar where one is live, wrapped at words in a terminal, whole in a file."""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from vit_attn.errors import printable

DUMB_TERMINALS = ("dumb", "unknown")
"""Values of ``TERM`` for terminals that cannot move their cursor."""
INDENT = "  "
"""Beginning of the lines that continue another one."""
WORD = re.compile(r"\s*(?:\(\w+ [\d,]+\)\S*|\S+)")
"""What stays in one line: a word, or a number in brackets with its name, such as (step 30)."""
Listener = Callable[[str], None]


@runtime_checkable
class Stream(Protocol):
    """A stream of text, such as ``sys.stdout`` and what programs put in its place."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        ...

    def flush(self) -> None:
        """Pass on what was written."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of its file."""
        ...

    def isatty(self) -> bool:
        """Return true for a terminal."""
        ...


class Console:
    """Writer of all lines that a command says, which it also passes on to its listeners.

    Progress bars redraw the lines at the cursor, so text that is written past them is erased or broken. A line of this
    class is written above the bars of Rich and of tqdm, whoever has made them.
    """

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        """Functions that get each line, such as the writer of a log file."""

    def say(self, text: str, stream: Stream | None = None) -> None:
        """Write lines.

        Args:
            text: One or more lines; control characters in them are escaped.
            stream: ``sys.stdout``, which is the default, or ``sys.stderr``.
        """
        stream = stream or sys.stdout
        for line in printable(text.removesuffix("\n"), keep="\n\t").split("\n"):
            for listener in list(self.listeners):  # one that fails takes itself off
                listener(line)
            _write(line, stream)


CONSOLE = Console()
"""The console of this process."""


def is_interactive() -> bool:
    """Tell whether the output is a terminal on which a progress bar can be redrawn, unlike a file or a pipe."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in DUMB_TERMINALS


def terminal_width(stream: Stream) -> int | None:
    """Return the columns of the terminal to which a stream writes; None for a file or a pipe."""
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    try:
        return int(columns) if columns.isdecimal() and int(columns) else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a stream that is none of the system's
        return None


def wrap(line: str, width: int) -> list[str]:
    """Wrap a line at spaces; a word that is longer than the line, such as a path, stays whole.

    >>> wrap("loss 1.5, accuracy 0.25", 14)
    ['loss 1.5,', '  accuracy', '  0.25']
    >>> wrap("in /a/long/path (step 30)", 8)
    ['in', '  /a/long/path', '  (step 30)']
    >>> wrap("类别 名称", 6)
    ['类别', '  名称']

    Args:
        line: The line; its indentation stays.
        width: Columns.
    """
    from rich.cells import cell_len  # rich takes 0.1 s, which --help need not wait for

    if cell_len(line) <= width:
        return [line]
    lines, current = [], ""
    for word in WORD.findall(line):
        if current.strip() and cell_len(current + word) > width:
            lines.append(current)
            current = INDENT + word.strip()
        else:
            current += word
    return [*lines, current]


def _write(line: str, stream: Stream) -> None:
    """Write a line, above a live progress bar."""
    target: Stream = getattr(stream, "rich_proxied_file", stream)  # what Rich has put in the stream's place
    width = terminal_width(target)
    encoding = getattr(target, "encoding", None) or "utf-8"
    line = line.encode(encoding, "backslashreplace").decode(encoding)  # such as a file's name that is no text
    if width is None:
        target.write(f"{line}\n")
    elif target is not stream:
        import rich
        from rich.text import Text

        rich.get_console().print(Text("\n".join(wrap(line, width))), soft_wrap=True)
    else:
        _write_above_tqdm("\n".join(wrap(line, width)) + "\n", target)
    target.flush()


def _write_above_tqdm(text: str, stream: Stream) -> None:
    """Write text where bars of tqdm may be drawn; they are erased and drawn again below it."""
    if "tqdm.std" not in sys.modules:
        stream.write(text)
        return
    from tqdm.std import tqdm

    with tqdm.external_write_mode(file=stream):
        stream.write(text)


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Keep warnings and log messages up to INFO from the user inside the ``with`` block."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
