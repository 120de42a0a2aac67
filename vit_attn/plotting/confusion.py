"""Confusion matrix as a picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vit_attn.plotting.canvas import Box, Canvas
from vit_attn.plotting.scale import Picture, Scale

MOST_LABEL = 1.7
"""Largest width of a class name in inches."""
MOST_SIDE = 14.0
"""Side of the matrix of very many classes in inches."""
SIDE_LIST = 2.6
"""Width of the list of mistakes in inches."""
TITLE = 0.45
"""Height of the title in inches."""


class Style(NamedTuple):
    """Sizes of a matrix, which depend on the number of classes.

    Args:
        cell: Side of a cell in inches.
        points: Font size of class names; 0 for no names.
        numbers: Font size of numbers in cells; 0 for no numbers.
        percent: Whether cells show percentages in addition to counts.
    """

    cell: float
    points: float
    numbers: float
    percent: bool


def style_of(classes: int) -> Style:
    """Choose a style: few classes have numbers and names, more have names only, very many have neither."""
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
    """Draw a confusion matrix: rows are true classes, columns predicted ones, colours per cent of a row.

    Colours follow the square root, so that rare mistakes are visible beside a strong diagonal.

    Args:
        counts: Number of images by true class (row) and predicted class (column).
        names: Names of the classes.
        title: Title of the figure.
        dpi: Pixels per inch.
    """
    classes, style = len(names), style_of(len(names))
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    worst = most_confused(counts, 24 if classes > 25 else 10 if classes > 4 else 4)
    measure = Canvas(1, 1, dpi)
    label = min(MOST_LABEL, max(measure.length(name, style.points) for name in names)) if style.points else 0.4
    matrix = Box(0.4 + label, TITLE, classes * style.cell, classes * style.cell)
    width, bottom = matrix.left + matrix.width + 0.95 + SIDE_LIST, matrix.top + matrix.height
    canvas = Canvas(width, max(bottom + label + 0.45, TITLE + 0.55 + 0.19 * len(worst)), dpi)
    canvas.write(title, matrix.left, 0.12, 11, "lt", width - matrix.left - 0.1)
    scale = Scale(100, root=True, colourmap="Blues")
    canvas.place(scale.colours(percent), matrix)
    canvas.outline(matrix, "#8a8a8a", 0.5)
    if style.numbers:
        _numbers(canvas, matrix, counts, percent, style)
    _names(canvas, matrix, names, style, label)
    canvas.write_upward("true class", 0.16, matrix.top + matrix.height / 2, 9)
    canvas.write("predicted class", matrix.centre, bottom + label + 0.16, 9, "mt")
    bar = Box(matrix.left + matrix.width + 0.2, matrix.top, 0.14, min(matrix.height, 3.0))
    canvas.scale_bar(scale, bar, "% of the true class")
    _worst(canvas, bar.left + 0.8, matrix.top, worst, names, counts)
    return canvas.pixels()


def most_confused(counts: Int[np.ndarray, "classes classes"], most: int) -> list[tuple[int, int]]:
    """Pairs of true and predicted class that were confused, most frequent first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [(row, col) for row, col in pairs if wrong[row, col] > 0]


def _numbers(
    canvas: Canvas,
    matrix: Box,
    counts: Int[np.ndarray, "classes classes"],
    percent: Float[np.ndarray, "classes classes"],
    style: Style,
) -> None:
    """Write counts, and per cent where there is room; cells of zero stay empty."""
    side = len(counts)
    for row, col in np.argwhere(counts).tolist():
        cell = matrix.part(row, col, side, side)
        colour = "white" if percent[row, col] > 35 else "#1a1a1a"  # by the square root, half-way is a quarter
        text = f"{counts[row, col]}"
        if style.percent:
            text = f"{percent[row, col]:.3g}%\n{text}"
        canvas.write(text, cell.centre, cell.top + cell.height / 2, style.numbers, "mm", colour=colour)


def _names(canvas: Canvas, matrix: Box, names: Sequence[str], style: Style, label: float) -> None:
    """Write names beside rows and below columns, or indices at intervals where there are too many classes."""
    side, bottom = len(names), matrix.top + matrix.height
    step, points = (1, style.points) if style.points else (100 if side > 400 else 20, 8.0)
    for index in range(0, side, step):
        text = canvas.cut(names[index], label, points) if style.points else str(index)
        cell = matrix.part(index, index, side, side)
        canvas.write(text, matrix.left - 0.06, cell.top + cell.height / 2, points, "rm")
        canvas.write_upward(text, cell.centre, bottom + 0.06, points, top=True)


def _worst(
    canvas: Canvas,
    left: float,
    top: float,
    worst: Sequence[tuple[int, int]],
    names: Sequence[str],
    counts: Int[np.ndarray, "classes classes"],
) -> None:
    """List the most frequent mistakes."""
    if not worst:
        canvas.write("no mistakes", left, top, 9, "lt")
        return
    canvas.write("most frequent mistakes: true → predicted", left, top, 9, "lt", SIDE_LIST)
    for line, (row, col) in enumerate(worst):
        y = top + 0.24 + 0.19 * line
        canvas.write(str(counts[row, col]), left + 0.4, y, 8, "rt")
        canvas.write(f"{names[row]} → {names[col]}", left + 0.5, y, 8, "lt", SIDE_LIST - 0.55)
