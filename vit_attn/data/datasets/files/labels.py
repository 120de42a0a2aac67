"""What the texts of a label column mean: which class, or none."""

import re
from collections.abc import Iterable
from decimal import Decimal

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.names import describe_look_alikes
from vit_attn.errors import UserError

MISSING = frozenset("|#n/a|#n/a n/a|#na|-1.#ind|-1.#qnan|1.#ind|1.#qnan|<na>|n/a|nan|-nan|null".split("|"))
"""What stands in a cell that holds nothing, in small letters: what pandas reads so, and what is cased otherwise."""
MISSING_AS_CASED = frozenset(("NA", "None"))
"""The same, of words that may be names if they are cased otherwise."""
DOUBTFUL = frozenset(("none", "na", "nil", "?", "-", "--", "n.a."))
"""What may be a class or mean that there is none, in small letters."""
WHOLE = re.compile(r"(-?)([0-9]+)(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def is_missing(text: str) -> bool:
    """Whether a cell holds nothing.

    >>> [is_missing(text) for text in ("NaN", "NULL", "#N/A N/A", "None", "none", "0")]
    [True, True, True, True, False, False]
    """
    return text in MISSING_AS_CASED or text.casefold() in MISSING


def labels_of(cells: Iterable[str], where: str) -> tuple[dict[str, str | None], list[str]]:
    """The class of each text of a label column, None where it says nothing; and remarks.

    Where 1 is a label, or all are whole numbers, 1.0 is 1: a program that met an empty cell writes the whole column so.

    Args:
        cells: The texts.
        where: The column, for a message.

    Raises:
        UserError: If two texts are the same number otherwise, such as 7 and 007: are they one class or two?

    >>> labels_of(["1", "1.0", "NaN"], "table.csv")
    ({'1': '1', '1.0': '1', 'NaN': None}, ['labels such as 1.0 are read as 1'])
    """
    texts = dict.fromkeys(cells)
    named = {text: class_name(text) for text in texts if not is_missing(text)}
    names = set(named.values())
    whole = all(WHOLE.fullmatch(name) for name in names)
    remarks = []
    for text, name in named.items():
        plain = _plain(name)
        if plain != name and (whole or plain in names):
            named[text] = plain
            remarks = remarks or [f"labels such as {name} are read as {plain}"]
    names = dict.fromkeys(named.values())
    _refuse_same_numbers(names, where)
    if doubtful := [repr(name) for name in names if name.casefold() in DOUBTFUL]:
        what = "a class" if len(doubtful) == 1 else "classes"
        remarks.append(f"taken for {what}: {', '.join(doubtful)}; leave cells without a label empty")
    return {text: named.get(text) for text in texts}, remarks + describe_look_alikes(names)


def _plain(name: str) -> str:
    """A whole number without nought decimals and without the sign of nought; other names as they are."""
    if not (match := WHOLE.fullmatch(name)):
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
