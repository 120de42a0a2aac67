"""Kinds of remarks on the user's files."""


class Doubt(str):
    """Remark on what may be wrong with the user's files, which is logged as a warning."""

    __slots__ = ()
