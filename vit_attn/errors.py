"""A user's mistake, told in one line, whatever the files and names hold that it is about."""

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST_LINE = 800
"""Characters of an error line; what a file or a user gave can be of any length."""
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing: control characters, line ends, marks of the reading direction."""


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints its message as one line, without a traceback."""


class TrainingFailed(RuntimeError):
    """A training that cannot go on. The command line prints its message as one line and returns 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, has not the memory that was asked for; without importing torch."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error about an unknown name: the closest known names, or nothing.

    >>> did_you_mean("cifar1O", ["cifar10", "coins"])
    ", did you mean 'cifar10'?"
    >>> did_you_mean("xyz", ["cifar10", "coins"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def printable(text: str, keep: str = "") -> str:
    r"""The text with control characters escaped: a name must not clear, colour or rewrite the user's terminal.

    Args:
        text: Anything that holds names of files or classes.
        keep: Control characters that stay, such as the line ends of a table.

    >>> printable("cat\x1b[2J.png")
    'cat\\x1b[2J.png'
    """
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def shortened(text: str, limit: int = LONGEST_LINE) -> str:
    """The text without its middle, if it is longer than that.

    >>> shortened("0123456789" * 100, 40)
    '01234567 … 984 characters … 23456789'
    """
    if len(text) <= limit:
        return text
    half = max(1, (limit - 24) // 2)
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"


def one_line(error: object) -> str:
    """An error as the command line prints it."""
    return shortened(printable(str(error)))


def some_of(names: Sequence[object], shown: int = 10) -> str:
    """The first names, and how many more there are.

    >>> some_of(range(1000), 3)
    '0, 1, 2 and 997 more'
    """
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
