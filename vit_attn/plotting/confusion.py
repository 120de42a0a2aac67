"""Which classes are taken for which, as a picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vit_attn.plotting.canvas import Box, Canvas, Picture, Scale

MOST_LABEL = 1.7
"""Inches that a class's name may take."""
MOST_SIDE = 14.0
"""Inches of the matrix of very many classes."""
SIDE_LIST = 2.6
TITLE = 0.45


class Style(NamedTuple):
    """How a matrix of so many classes is drawn.

    Args:
        cell: Side of a cell in inches.
        points: Size of the names; 0 for none.
        numbers: Size of the numbers in cells; 0 for none.
        shares: Whether cells say the share beside the count.
    """

    cell: float
    points: float
    numbers: float
    shares: bool


def style_of(classes: int) -> Style:
    """Few classes have numbers, more have names, and very many have neither."""
    if classes <= 12:
        return Style(0.56 if classes > 4 else 0.8, 9, 8, True)
    if classes <= 25:
        return Style(0.36, 8, 7, False)
    if classes <= 120:
        return Style(0.15, 7.5, 0, False)
    return Style(MOST_SIDE / classes, 0, 0, False)


def draw_confusion(
    counts: Int[np.ndarray, "classes classes"], names: Sequence[str], title: str, dpi: int = 110
) -> Picture:
    """Rows are true classes, columns what they were named; colours are shares of a row, in per cent.

    Colours follow the square root, so that rare mistakes are seen beside a strong diagonal.

    Args:
        counts: Images of a true class (row) that were named a class (column).
        names: Of the classes.
        title: What stands above.
        dpi: Pixels an inch.
    """
    classes, style = len(names), style_of(len(names))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = most_confused(counts, 24 if classes > 25 else 10 if classes > 4 else 4)
    measure = Canvas(1, 1, dpi)
    label = min(MOST_LABEL, max(measure.length(name, style.points) for name in names)) if style.points else 0.4
    matrix = Box(0.4 + label, TITLE, classes * style.cell, classes * style.cell)
    width, bottom = matrix.left + matrix.width + 0.95 + SIDE_LIST, matrix.top + matrix.height
    page = Canvas(width, max(bottom + label + 0.45, TITLE + 0.55 + 0.19 * len(worst)), dpi)
    page.write(title, matrix.left, 0.12, 11, "lt", width - matrix.left - 0.1)
    scale = Scale(100, root=True, table="Blues")
    page.place(scale.colours(shares), matrix)
    page.outline(matrix, "#8a8a8a", 0.5)
    if style.numbers:
        _numbers(page, matrix, counts, shares, style)
    _names(page, matrix, names, style, label)
    page.write_upward("true class", 0.16, matrix.top + matrix.height / 2, 9)
    page.write("named as", matrix.centre, bottom + label + 0.16, 9, "mt")
    bar = Box(matrix.left + matrix.width + 0.2, matrix.top, 0.14, min(matrix.height, 3.0))
    page.scale_bar(scale, bar, "% of the true class")
    _worst(page, bar.left + 0.8, matrix.top, worst, names, counts)
    return page.pixels()


def most_confused(counts: Int[np.ndarray, "classes classes"], most: int) -> list[tuple[int, int]]:
    """True class and what it was named, where that was wrong, commonest first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [(row, col) for row, col in pairs if wrong[row, col] > 0]


def _numbers(
    page: Canvas,
    matrix: Box,
    counts: Int[np.ndarray, "classes classes"],
    shares: Float[np.ndarray, "classes classes"],
    style: Style,
) -> None:
    """Counts, and shares where there is room; cells of nothing stay empty."""
    side = len(counts)
    for row, col in np.argwhere(counts).tolist():
        cell = matrix.part(row, col, side, side)
        colour = "white" if shares[row, col] > 35 else "#1a1a1a"  # by the square root, half-way is a quarter
        text = f"{counts[row, col]}"
        if style.shares:
            text = f"{shares[row, col]:.3g}%\n{text}"
        page.write(text, cell.centre, cell.top + cell.height / 2, style.numbers, "mm", colour=colour)


def _names(page: Canvas, matrix: Box, names: Sequence[str], style: Style, label: float) -> None:
    """Names beside the rows and below the columns, or every so many numbers where there are too many classes."""
    side, bottom = len(names), matrix.top + matrix.height
    step, points = (1, style.points) if style.points else (100 if side > 400 else 20, 8.0)
    for index in range(0, side, step):
        text = page.cut(names[index], label, points) if style.points else str(index)
        cell = matrix.part(index, index, side, side)
        page.write(text, matrix.left - 0.06, cell.top + cell.height / 2, points, "rm")
        page.write_upward(text, cell.centre, bottom + 0.06, points, top=True)


def _worst(
    page: Canvas,
    left: float,
    top: float,
    worst: Sequence[tuple[int, int]],
    names: Sequence[str],
    counts: Int[np.ndarray, "classes classes"],
) -> None:
    """A list of the commonest mistakes."""
    if not worst:
        page.write("no mistakes", left, top, 9, "lt")
        return
    page.write("commonest mistakes: true → named", left, top, 9, "lt", SIDE_LIST)
    for line, (row, col) in enumerate(worst):
        y = top + 0.24 + 0.19 * line
        page.write(str(counts[row, col]), left + 0.4, y, 8, "rt")
        page.write(f"{names[row]} → {names[col]}", left + 0.5, y, 8, "lt", SIDE_LIST - 0.55)
