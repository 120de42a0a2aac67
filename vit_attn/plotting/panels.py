"""Layout of figures: panels in rows and columns with a colour bar, their titles and captions."""

import numpy as np

from vit_attn.plotting.canvas import Box, Canvas


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
