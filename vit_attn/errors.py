"""Errors of the user, and text that is safe to print in one line."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

LONGEST_LINE = 800
"""Characters of an error line at most; text from a file or a user can be of any length."""
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal does not show: control characters, line ends, marks of the reading direction."""


class UserError(ValueError):
    """Mistake that the user can correct. The command line prints its message as one line, without a traceback."""


class TrainingFailed(RuntimeError):
    """Training that cannot go on. The command line prints its message as one line and returns 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device or the machine is out of memory; without importing torch."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error)


NOT_FOR_USERS = ("test", "docs", "dev")
"""Extras of contributors, which have packages of the other ones, too."""


def missing_package(needs_it: str, package: str) -> UserError:
    """Make the error for an optional package that is not installed, with the extra of this package that brings it.

    Args:
        needs_it: Feature that needs the package, such as a data set.
        package: Name of the package, as pip spells it.

    >>> str(missing_package("svhn", "scipy"))
    "svhn needs scipy, which is not installed: pip install 'vit_attn[data]'"
    """
    pattern = re.compile(rf"{re.escape(package)}\b(?!-)[^;]*;.*\bextra == [\"']([\w-]+)[\"']")
    extras = [found[1] for each in _requirements() if (found := pattern.match(each))]
    extra = next((each for each in extras if each not in NOT_FOR_USERS), None)
    install = f"'vit_attn[{extra}]'" if extra else package
    return UserError(f"{needs_it} needs {package}, which is not installed: pip install {install}")


def _requirements() -> list[str]:
    try:
        return metadata.requires("vit_attn") or []
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return []


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known names, as a hint to append to an error about an unknown one.

    >>> did_you_mean("cifar1O", ["cifar10", "coins"])
    ", did you mean 'cifar10'?"
    >>> did_you_mean("xyz", ["cifar10", "coins"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def path_hint(path: str | Path) -> str:
    """Suggest the path that one that does not exist may mean, as a hint to append to an error about it.

    Backslashes between folders, quotes and spaces around a path are tried first, then names that are spelled alike.

    Args:
        path: A path at which there is nothing.
    """
    text = str(path)
    for meant in (text.replace("\\", "/"), text.strip("\"' "), os.path.expanduser(text)):
        if meant != text and meant and os.path.exists(meant):
            return f", did you mean {meant!r}?"
    parts = Path(text).parts
    for count in range(1, len(parts) + 1):
        if os.path.exists(Path(*parts[:count])):
            continue
        parent = Path(*parts[: count - 1])
        try:
            names = os.listdir(parent)
        except OSError:  # a file, or a folder that may not be read
            return ""
        meant = {name: str(Path(parent, name, *parts[count:])) for name in names}
        close = difflib.get_close_matches(
            parts[count - 1], [name for name in names if os.path.exists(meant[name])], n=3
        )
        return f", did you mean {' or '.join(repr(meant[name]) for name in close)}?" if close else ""
    return ""


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters, so that a name cannot clear, colour or rewrite the user's terminal.

    Args:
        text: Text with names of files or classes.
        keep: Control characters to keep, such as the line ends of a table.

    >>> printable("cat\x1b[2J.png")
    'cat\\x1b[2J.png'
    """
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def shortened(text: str, limit: int = LONGEST_LINE) -> str:
    """Replace the middle of a text that is longer than ``limit`` characters.

    >>> shortened("0123456789" * 100, 40)
    '01234567 … 984 characters … 23456789'
    """
    if len(text) <= limit:
        return text
    half = max(1, (limit - 24) // 2)
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"


def one_line(error: object) -> str:
    """Format an error as the command line prints it."""
    return shortened(printable(str(error)))


def some_of(names: Sequence[object], shown: int = 10) -> str:
    """List the first names, and count the others.

    >>> some_of(range(1000), 3)
    '0, 1, 2 and 997 more'
    """
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
