"""Tables of text that fit a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

WIDTH = 80
"""Columns of a table at most; its lines are as wide in a file, where a terminal of any width shows them later."""
CELL = 17
"""Columns of a cell at most, but for the first of a row; longer text goes on in the next line, at a space."""
FIRST = 30
"""Columns of the first cell of a row at most."""


def format_table(rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Format a table; columns that do not fit beside the others follow below, with the first column again.

    >>> print(format_table([["method", "deletion", "insertion"], ["rollout", "0.12", "0.4"]]), end="")
    method  deletion insertion
    rollout     0.12       0.4

    Args:
        rows: The heading and the rows, which may be shorter. The first cell is aligned left, the others right.
        width: Columns of a line at most.
    """
    columns = max(map(len, rows))
    cells = [
        [_wrapped(row[at], CELL if at else FIRST) if at < len(row) else [""] for at in range(columns)] for row in rows
    ]
    widths = [max(cell_len(line) for row in cells for line in row[at]) for at in range(columns)]
    blocks: list[list[int]] = [[]]
    for at in range(1, columns):
        if blocks[-1] and widths[0] + sum(1 + widths[each] for each in [*blocks[-1], at]) > width:
            blocks.append([])
        blocks[-1].append(at)
    return "\n".join("".join(_lines(row, [0, *block], widths) for row in cells) for block in blocks)


def shorten_name(name: str, columns: int) -> str:
    """Cut the end of a name to a number of columns; a cut name ends in an ellipsis.

    >>> shorten_name("golden retriever", 8), shorten_name("owl", 8), shorten_name("金色寻回犬", 6)
    ('golden…', 'owl', '金色…')
    """
    return name if cell_len(name) <= columns else set_cell_size(name, columns - 1).rstrip() + "…"


def pad(text: str, columns: int) -> str:
    """Pad a text to a number of columns, of which some characters take two.

    >>> pad("owl", 5) + "|", pad("金色", 5) + "|"
    ('owl  |', '金色 |')
    """
    return text + " " * (columns - cell_len(text))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _lines(row: Sequence[Sequence[str]], block: Sequence[int], widths: Sequence[int]) -> str:
    """Format the lines of a row, as many as its longest cell has."""
    text = ""
    for number in range(max(len(row[at]) for at in block)):
        line = [row[at][number] if number < len(row[at]) else "" for at in block]
        cells = [
            pad(line[0], widths[0]),
            *(each.rjust(widths[at]) for each, at in zip(line[1:], block[1:], strict=True)),
        ]
        text += " ".join(cells).rstrip() + "\n"
    return text
