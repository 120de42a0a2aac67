"""A user's mistake, told in one line."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints its message as one line, without a traceback."""


class TrainingFailed(RuntimeError):
    """A training that cannot go on. The command line prints its message as one line and returns 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to an error about an unknown name: the closest known names, or nothing.

    >>> did_you_mean("cifar1O", ["cifar10", "coins"])
    ", did you mean 'cifar10'?"
    >>> did_you_mean("xyz", ["cifar10", "coins"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""
