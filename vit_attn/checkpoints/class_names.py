"""Class names as they are compared: by files, checkpoints and data sets alike."""

import unicodedata


def class_name(text: str) -> str:
    r"""The name of a class as it is compared: names that look alike but differ in their Unicode form are one.

    >>> class_name("cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).strip()
