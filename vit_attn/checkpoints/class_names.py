"""Canonical form of class names, for comparing those of files, checkpoints and data sets."""

import unicodedata


def class_name(text: str) -> str:
    r"""Normalise a class name to Unicode's composed form (NFC) without surrounding white space.

    >>> class_name("cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).strip()
