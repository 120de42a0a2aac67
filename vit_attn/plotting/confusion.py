"""Confusion matrix as a picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vit_attn.plotting.canvas import DPI, POINTS, Box, Canvas
from vit_attn.plotting.panels import BAR_HEIGHT, BAR_TEXT, EDGE, LINE, WIDTH
from vit_attn.plotting.scale import Picture, Scale

MOST_LABEL = 1.2
"""Largest width of a class name in inches."""
MOST_SIDE = 14.0
"""Side of the matrix of very many classes in inches."""
SCALE = Scale(100, root=True, colourmap="Blues")
MOST_PIXELS = 1710
"""Largest width of a figure in pixels."""
AXIS = 0.22
"""Inches for the name of an axis."""


class Style(NamedTuple):
    """Sizes of a matrix, which depend on the number of classes.

    Args:
        cell: Side of a cell in inches.
        points: Font size of class names; 0 for no names.
        numbers: Whether cells have numbers.
    """

    cell: float
    points: float
    numbers: bool


def style_of(classes: int, label: float) -> Style:
    """Choose a style: few classes have numbers and names, more have names only, very many have neither.

    Args:
        classes: Number of classes.
        label: Inches for the longest name.
    """
    if classes <= 12:
        return Style((WIDTH - 2 * EDGE - AXIS - label) / classes, POINTS, True)
    if classes <= 25:
        return Style(0.36, POINTS, True)
    if classes <= 120:
        return Style(0.16, 8, False)
    return Style(MOST_SIDE / classes, 0, False)


def draw_confusion(
    counts: Int[np.ndarray, "classes classes"], names: Sequence[str], title: str, dpi: int = DPI
) -> Picture:
    """Draw a confusion matrix: rows are true classes, columns predicted ones, colours and numbers per cent of a row.

    Colours follow the square root, so that rare mistakes are visible beside a strong diagonal. Up to 12 classes are
    legible in TensorBoard; of more, the heading and the list of the most frequent mistakes below the matrix are.

    Args:
        counts: Number of images by true class (row) and predicted class (column).
        names: Names of the classes.
        title: Title of the figure.
        dpi: Pixels per inch; fewer where the figure would be more than 1,700 pixels wide.
    """
    classes, measure = len(names), Canvas(1, 1, dpi)
    label = min(MOST_LABEL, 0.08 + max(measure.length(name) for name in names)) if classes <= 120 else 0.4
    style = style_of(classes, label)
    side = classes * style.cell
    width = max(WIDTH, 2 * EDGE + AXIS + label + side)
    dpi = min(dpi, int(MOST_PIXELS / width))
    measure = Canvas(1, 1, dpi)
    points = POINTS * width / WIDTH  # so that it is legible in TensorBoard, however wide the figure is
    line = LINE * width / WIDTH
    heading = measure.wrap(title, width - 2 * EDGE, points=points)
    worst = most_confused(counts, 10)
    matrix = Box(EDGE + AXIS + label, EDGE + line * (1 + heading.count("\n")) + EDGE, side, side)
    bar = Box(EDGE, matrix.top + side + label + AXIS + 0.1, width - 2 * EDGE, BAR_HEIGHT)
    below = bar.top + BAR_HEIGHT + BAR_TEXT + 0.06
    canvas = Canvas(width, below + line * (1 + len(worst)) + EDGE, dpi)
    canvas.write(heading, EDGE, EDGE, points, "lt")
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    canvas.place(SCALE.colours(percent), matrix)
    canvas.outline(matrix, "#8a8a8a", 0.5)
    if style.numbers:
        _numbers(canvas, matrix, percent, style)
    _names(canvas, matrix, names, style, label)
    canvas.scale_bar(SCALE, bar, "% of the true class")
    text = [f"{counts[row, col]:,} of {names[row]} as {names[col]}" for row, col in worst]
    shown = ["most frequent mistakes:", *text] if worst else ["no mistakes"]
    canvas.write("\n".join(shown), EDGE, below, points, "lt", width - 2 * EDGE)
    return canvas.pixels()


def most_confused(counts: Int[np.ndarray, "classes classes"], most: int) -> list[tuple[int, int]]:
    """Pairs of true and predicted class that were confused, most frequent first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [(row, col) for row, col in pairs if wrong[row, col] > 0]


def _numbers(canvas: Canvas, matrix: Box, percent: Float[np.ndarray, "classes classes"], style: Style) -> None:
    """Write per cent; cells of zero stay empty."""
    side = len(percent)
    points = min(POINTS, 72 * style.cell / 2.2)
    for row, col in np.argwhere(percent).tolist():
        cell = matrix.part(row, col, side, side)
        colour = "white" if percent[row, col] > 35 else "#1a1a1a"  # by the square root, half-way is a quarter
        value = percent[row, col]
        text = f"{value:.1f}" if style.cell > 0.45 else "<1" if value < 0.5 else f"{value:.0f}"
        canvas.write(text, cell.centre, cell.top + cell.height / 2, points, "mm", colour=colour)


def _names(canvas: Canvas, matrix: Box, names: Sequence[str], style: Style, label: float) -> None:
    """Write names of axes and of classes, or indices at intervals where there are too many classes."""
    side, bottom = len(names), matrix.top + matrix.height
    step, points = (1, style.points) if style.points else (100 if side > 400 else 20, 8.0)
    for index in range(0, side, step):
        text = canvas.cut(names[index], label, points) if style.points else str(index)
        cell = matrix.part(index, index, side, side)
        canvas.write(text, matrix.left - 0.06, cell.top + cell.height / 2, points, "rm")
        canvas.write_upward(text, cell.centre, bottom + 0.06, points, top=True)
    canvas.write_upward("true class", EDGE + AXIS / 2, matrix.top + matrix.height / 2)
    canvas.write("predicted class", matrix.centre, bottom + label + 0.04)
