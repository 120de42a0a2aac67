"""Layout of figures: a heading, panels in rows and columns, titles, captions, a legend and a colour bar.

TensorBoard draws a picture 350 pixels wide, and leaves out pixels of a larger one without smoothing. So a figure is 3.5
inches wide, with few panels a row, and has exactly twice the pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vit_attn.plotting.canvas import POINTS, Box, Canvas, text_width

WIDTH = 3.5
"""Width of a figure in inches."""
LINE = 1.25 * POINTS / 72
"""Height of a line of text in inches."""
LEGEND_COLUMN, LEGEND_LINE, LEGEND_TEXT = 0.8, 0.18, 0.19
"""Inches from one column of a legend to the next, from one line to the next, and from an entry's left to its text."""
BAR_HEIGHT, BAR_TEXT = 0.1, 0.4
"""Inches of the colour bar, and of the ticks and the label below it."""
GAP = 0.08
"""Inches between panels."""
EDGE = 0.05
"""Inches of white around a figure."""
TALLEST, WIDEST = 4.0, 8.0
"""Height of a panel by its width, and width by its height, beyond which pictures are drawn compressed."""


@dataclass(frozen=True)
class Grid:
    """Panels in rows and columns, with room for text.

    Args:
        rows: Rows of panels.
        cols: Columns of panels.
        panel: Width and height of a panel in inches.
        gap: Inches between panels, across and down.
        left: Inches at the left of the panels, for the names of rows.
        above: Inches above the panels, below the heading, for the names of columns.
        below: Inches below the panels, above the colour bar, for captions and a legend.
    """

    rows: int
    cols: int
    panel: tuple[float, float]
    gap: tuple[float, float] = (0.08, 0.08)
    left: float = 0.0
    above: float = 0.0
    below: float = 0.0


def layout(
    heading: str, grid: Grid, dpi: int, width: float = WIDTH, has_bar: bool = True
) -> tuple[Canvas, list[Box], Box]:
    """Make a canvas with its heading, its panels, row by row, and the box of the colour bar.

    Args:
        heading: Text above the panels, which is wrapped to the width and never cut.
        grid: The panels.
        dpi: Pixels per inch.
        width: Width of the figure in inches.
        has_bar: Whether there is room for the colour bar.
    """
    lines = Canvas(1, 1, dpi).wrap(heading, width - 2 * EDGE) if heading else ""
    top = EDGE + (LINE * (1 + lines.count("\n")) + EDGE if lines else 0.0) + grid.above
    down = grid.rows * grid.panel[1] + (grid.rows - 1) * grid.gap[1]
    bar = Box(EDGE, top + down + grid.below + 0.08, width - 2 * EDGE, BAR_HEIGHT)
    canvas = Canvas(width, bar.top + (BAR_HEIGHT + BAR_TEXT if has_bar else 0.0), dpi)
    canvas.write(lines, EDGE, EDGE, anchor="lt")
    panels = [
        Box(
            EDGE + grid.left + col * (grid.panel[0] + grid.gap[0]),
            top + row * (grid.panel[1] + grid.gap[1]),
            *grid.panel,
        )
        for row, col in np.ndindex(grid.rows, grid.cols)
    ]
    return canvas, panels, bar


def panel_width(cols: int, gap: float, left: float = 0.0, width: float = WIDTH) -> float:
    """Width in inches of each of so many panels in a row."""
    return (width - 2 * EDGE - left - (cols - 1) * gap) / cols


def panel_ratio(height: int, width: int) -> float:
    """Height of a panel by its width: that of what it shows, within bounds that keep figures small."""
    return min(max(height / width, 1 / WIDEST), TALLEST)


def title_above(canvas: Canvas, text: str, panel: Box) -> None:
    """Write a title above a panel, wrapped to its width; the last of its two lines is cut if there are more."""
    canvas.write(canvas.wrap(text, panel.width, lines=2), panel.centre, panel.top - 0.035, anchor="mb")


def caption(canvas: Canvas, text: str, panel: Box) -> None:
    """Write a caption below a panel, cut to its width."""
    canvas.write(text, panel.centre, panel.top + panel.height + 0.02, anchor="mt", most=panel.width + 0.04)


def axis_names(canvas: Canvas, table: Box, grid: tuple[int, int], layers: Sequence[int]) -> None:
    """Write ``layer`` and the numbers of layers at the left of a table, ``head`` and those of heads above it.

    Args:
        canvas: The canvas.
        table: Box of all rows and columns; 0.42 inches at its left and above it are free.
        grid: Rows, which are layers, and columns, which are heads.
        layers: Indices of the layers, from 0.
    """
    rows, cols = grid
    canvas.write("head", table.centre, table.top - 0.2, anchor="mb")
    canvas.write_upward("layer", table.left - 0.34, table.top + table.height / 2)
    for row in range(0, rows, _every(table.height / rows)):
        cell = table.part(row, 0, rows, cols)
        canvas.write(str(layers[row] + 1), table.left - 0.05, cell.top + cell.height / 2, anchor="rm")
    for col in range(0, cols, _every(table.width / cols)):
        canvas.write(str(col + 1), table.part(0, col, rows, cols).centre, table.top - 0.03, anchor="mb")


def _every(side: float) -> int:
    """Step from one number to the next along cells of so many inches: 2 for every second one, where they are narrow."""
    return math.ceil(0.19 / side)


class LegendEntry(NamedTuple):
    """Name in a legend, its left and top in inches from the legend's corner, and the width that its text may have."""

    name: str
    left: float
    top: float
    text_width: float


def place_legend(names: Sequence[str], width: float, dpi: int) -> list[LegendEntry]:
    """Place the entries of a legend on as many lines as they need to stay within a width.

    Args:
        names: The names.
        width: Inches that a line may have.
        dpi: Pixels per inch.
    """
    entries: list[LegendEntry] = []
    start = 0.05
    left, top = start, 0.0
    for name in names:
        needed = LEGEND_TEXT + text_width(name, POINTS, dpi)
        if left > start and left + needed > width:
            left, top = start, top + LEGEND_LINE
        entries.append(LegendEntry(name, left, top, width - left - LEGEND_TEXT))
        left += LEGEND_COLUMN * math.ceil((needed + 0.08) / LEGEND_COLUMN)
    return entries
