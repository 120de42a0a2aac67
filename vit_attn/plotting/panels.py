"""Layout of figures: panels in rows and columns with a colour bar, their titles, captions and legends."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_attn.plotting.canvas import Box, Canvas, text_width

LEGEND_COLUMN, LEGEND_LINE, LEGEND_TEXT = 0.6, 0.15, 0.17
"""Inches from one column of a legend to the next, from one line to the next, and from an entry's left to its text."""


def layout(
    shape: tuple[int, int],
    panel: tuple[float, float],
    gap: tuple[float, float],
    margin: tuple[float, float, float],
    dpi: int,
) -> tuple[Canvas, list[Box], Box]:
    """Make a canvas with its panels, row by row, and the box of the colour bar.

    Args:
        shape: Rows and columns of panels.
        panel: Width and height of a panel in inches.
        gap: Inches between panels, across and down.
        margin: Inches at the left, the bottom and the top.
        dpi: Pixels per inch.
    """
    (rows, cols), (width, height), (left, bottom, top) = shape, panel, margin
    full_width = left + cols * width + (cols - 1) * gap[0] + 0.62
    full_height = bottom + rows * height + (rows - 1) * gap[1] + top
    panels = [
        Box(left + col * (width + gap[0]), top + row * (height + gap[1]), width, height)
        for row, col in np.ndindex(rows, cols)
    ]
    return Canvas(full_width, full_height, dpi), panels, Box(full_width - 0.54, top, 0.09, full_height - bottom - top)


def title_above(canvas: Canvas, text: str, panel: Box) -> None:
    """Write a title above a panel, cut to its width."""
    canvas.write(text, panel.centre, panel.top - 0.035, 8, "mb", panel.width + 0.04)


def caption(canvas: Canvas, text: str, panel: Box) -> None:
    """Write a caption below a panel."""
    canvas.write(text, panel.centre, panel.top + panel.height + 0.02, 7.5, "mt")


def numbered_title(name: str, index: int, inches: float) -> str:
    """Title of a layer or head, counted from 1; without its name where there is no room."""
    return f"{name} {index + 1}" if inches > 0.55 else f"{index + 1}"


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
        needed = LEGEND_TEXT + text_width(name, 7.5, dpi)
        if left > start and left + needed > width:
            left, top = start, top + LEGEND_LINE
        entries.append(LegendEntry(name, left, top, width - left - LEGEND_TEXT))
        left += LEGEND_COLUMN * math.ceil((needed + 0.05) / LEGEND_COLUMN)
    return entries
