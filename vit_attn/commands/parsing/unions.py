"""One sentence from jsonargparse's list of what each alternative of a type would have taken."""

import re

from vit_attn.errors import did_you_mean

CLASS_FORMATS = ("Not a valid subclass", "a class path (str)", "a dict with")
"""Beginnings of messages about the formats of a class, which jsonargparse lists beside the real error."""
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "settings by name",
    "Iterable": "a list",
}
"""Python's types in words."""
VALUES = {
    "fp16": "16-mixed",
    "float16": "16-mixed",
    "half": "16-mixed",
    "amp": "16-mixed",
    "mixed": "16-mixed",
    "bfloat16": "bf16-mixed",
    "fp32": "32-true",
    "float32": "32-true",
    "full": "32-true",
}
"""Values by what other programs call them."""


def in_words(type_name: str) -> str:
    """Name a Python type in words.

    >>> in_words("int"), in_words("Path")
    ('a whole number', 'Path')
    """
    return WORDS.get(type_name, type_name)


def union_sentence(message: str) -> str:
    r"""Summarise the errors of all alternatives in one sentence: those of a class that was named, or all types.

    >>> union_sentence("Union subtypes\nErrors:\n - Expected a <class 'int'>\n - Expected a <class 'float'>\n"
    ...                "Given value type: <class 'str'>\nGiven value: many")
    "expected a whole number or a number, got 'many'"
    """
    errors = _errors(message)
    of_class = [error for error in errors if error.startswith("Problem with given class_path")]
    if of_class:
        return of_class[0]
    given = re.search(r"Given value: (\S+)\s*$", message)
    value = given[1] if given else ""
    types, literals = [], []
    for error in errors:
        if found := re.fullmatch(r"Expected an? typing\.Literal\[(.*)\]", error):
            literals += re.findall(r"'([^']*)'", found[1])
        elif found := re.fullmatch(r"Expected an? <class '(?:\w+\.)*(\w+)'>", error):
            types.append(in_words(found[1]))
        else:
            return "; or ".join(errors) + (f", got {value!r}" if value and "got" not in error.lower() else "")
    if _only_numbers_listed(message, literals):
        types = [each for each in types if each != WORDS["int"]]
    types += [f"one of {', '.join(map(repr, literals))}"] if literals else []
    return f"expected {' or '.join(dict.fromkeys(types))}, got {value!r}{_hint(value, literals)}"


def _errors(message: str) -> list[str]:
    """List the error of each alternative but None, which users do not expect to be accepted."""
    errors = message.partition("Errors:")[2].partition("Given value type:")[0]
    parts = [" ".join(part.split()) for part in re.split(r"^\s*- ", errors, flags=re.MULTILINE)]
    relevant = [part for part in parts if part and "NoneType" not in part and not part.startswith(CLASS_FORMATS)]
    return list(dict.fromkeys(relevant)) or [" ".join(message.split())]


def _only_numbers_listed(message: str, literals: list[str]) -> bool:
    """Tell whether whole numbers are only accepted from a list, each of which is listed as text, too."""
    numbers = re.search(r"typing\.Literal\[((?:\d+(?:, )?)+)\]", message.partition("Errors:")[0])
    return numbers is not None and set(numbers[1].split(", ")) <= set(literals)


def _hint(value: str, literals: list[str]) -> str:
    if (other := VALUES.get(value.lower())) in literals:
        return f", did you mean {other!r}?"
    return did_you_mean(value, literals)
