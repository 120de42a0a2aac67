"""Parameters of a request."""

from werkzeug import Request

from vit_attn.errors import UserError

MOST_DIGITS = 18
"""Digits of a number in a request: steps have 64 bits."""


def text_of(request: Request, name: str) -> str:
    """Return a parameter.

    Raises:
        UserError: If it is missing.
    """
    value = request.args.get(name)
    if value is None:
        raise UserError(f"missing parameter {name}")
    return value


def number_of(request: Request, name: str) -> int:
    """Return a parameter that is a whole number from 0.

    Raises:
        UserError: If it is missing or no such number.
    """
    value = text_of(request, name)
    if not _is_number(value):
        raise UserError(f"{name} must be a number, got {value!r}")
    return int(value)


def _is_number(text: str) -> bool:
    """Test for digits, no more than a step can have: Python refuses to convert some thousands of them."""
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS


def range_of(request: Request) -> tuple[int, int | None]:
    """Return the first and last of ``layers=first-last``; 0 and none where it is missing.

    Raises:
        UserError: If it is no such range.
    """
    value = request.args.get("layers")
    if value is None:
        return 0, None
    first, dash, last = value.partition("-")
    if not (dash and _is_number(first) and _is_number(last) and int(first) <= int(last)):
        raise UserError(f"layers must be first-last, got {value!r}")
    return int(first), int(last)
