"""Conversion of the texts of a label column to class names."""

import re
from collections.abc import Iterable
from decimal import Decimal

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.names import describe_look_alikes
from vit_attn.errors import UserError

MISSING = frozenset("|#n/a|#n/a n/a|#na|-1.#ind|-1.#qnan|1.#ind|1.#qnan|<na>|n/a|nan|-nan|null".split("|"))
"""Texts of an empty cell, in lower case: those of pandas, in any case."""
MISSING_AS_CASED = frozenset(("NA", "None"))
"""Texts of an empty cell that may be names in another case."""
DOUBTFUL = frozenset(("none", "na", "nil", "?", "-", "--", "n.a."))
"""Texts that may be a class or an empty cell, in lower case."""
INTEGER = re.compile(r"(-?)([0-9]+)(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def is_missing(text: str) -> bool:
    """Tell if a cell is empty, or has a text for an empty cell.

    >>> [is_missing(text) for text in ("NaN", "NULL", "#N/A N/A", "None", "none", "0")]
    [True, True, True, True, False, False]
    """
    return text in MISSING_AS_CASED or text.casefold() in MISSING


def class_of_labels(cells: Iterable[str], where: str) -> tuple[dict[str, str | None], list[str]]:
    """Class name of each text of a label column, None for an empty cell; and remarks.

    If 1 is a label, or all are integers, 1.0 is read as 1: pandas writes a column of integers with empty cells so.

    Args:
        cells: The texts.
        where: The column, for a message.

    Raises:
        UserError: If two texts are the same number in another form, such as 7 and 007.

    >>> class_of_labels(["1", "1.0", "NaN"], "table.csv")
    ({'1': '1', '1.0': '1', 'NaN': None}, ['labels such as 1.0 are read as 1'])
    """
    texts = dict.fromkeys(cells)
    named = {text: class_name(text) for text in texts if not is_missing(text)}
    names = set(named.values())
    integers = all(INTEGER.fullmatch(name) for name in names)
    remarks = []
    for text, name in named.items():
        plain = _plain(name)
        if plain != name and (integers or plain in names):
            named[text] = plain
            remarks = remarks or [f"labels such as {name} are read as {plain}"]
    names = dict.fromkeys(named.values())
    _refuse_same_numbers(names, where)
    if doubtful := [repr(name) for name in names if name.casefold() in DOUBTFUL]:
        what = "a class" if len(doubtful) == 1 else "classes"
        remarks.append(f"treated as {what}: {', '.join(doubtful)}; leave cells without a label empty")
    return {text: named.get(text) for text in texts}, remarks + describe_look_alikes(names)


def _plain(name: str) -> str:
    """An integer without zero decimals, and 0 without a sign; other names as they are."""
    if not (match := INTEGER.fullmatch(name)):
        return name
    sign, digits, _ = match.groups()
    return digits if not digits.strip("0") else sign + digits


def _refuse_same_numbers(names: Iterable[str], where: str) -> None:
    known: dict[Decimal, str] = {}
    for name in names:
        if NUMBER.fullmatch(name) and (first := known.setdefault(Decimal(name), name)) != name:
            raise UserError(
                f"{where}: the labels {first!r} and {name!r} are the same number: write them alike if they are one "
                "class, or put a letter before them"
            )
