"""Figures of maps: over their image, and as sheets of heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import DPI, Box, Canvas
from vit_attn.plotting.checks import check_maps, check_picture, check_values
from vit_attn.plotting.panels import (
    EDGE,
    GAP,
    LEGEND_LINE,
    LEGEND_TEXT,
    LINE,
    WIDTH,
    Grid,
    axis_names,
    caption,
    layout,
    panel_ratio,
    panel_width,
    place_legend,
    title_above,
)
from vit_attn.plotting.scale import LUMA, Mask, Picture, Scale

MARK_COLOUR = "#ff2d55"
MOST_HEIGHT = 5.5
"""Height of a sheet of heads in inches, up to which heads fill the width; TensorBoard shows 10 without scrolling."""


@dataclass(frozen=True)
class AttentionMap:
    """Map of one query, to be drawn over its image.

    Args:
        title: Title above the map.
        patches: Fraction of the query's attention on each patch; of relevance, fraction of that on all patches.
        prefix: Fraction on CLS and registers together, stated below the map.
        note: Text below a map without prefix, such as the class that it is for.
    """

    title: str
    patches: Float[np.ndarray, "rows cols"]
    prefix: float = 0.0
    note: str = ""


def patch_fractions(relevance: Float[np.ndarray, "rows cols"]) -> Float[np.ndarray, "rows cols"]:
    """Fraction of the relevance on all patches that each patch has; 0 where there is none."""
    return relevance / max(float(relevance.sum()), 1e-12)


@dataclass(frozen=True)
class Mark:
    """Outline of a patch or a block of patches.

    Args:
        name: Name in the legend.
        patch: Index of the patch, row by row, or of the upper left one of the block.
        line: Line style.
        rows: Height of the block in patches.
        cols: Width of the block in patches.
    """

    name: str
    patch: int
    line: Literal["solid", "dotted"] = "solid"
    rows: int = 1
    cols: int = 1


def draw_overlays(
    image: Picture,
    heading: str,
    maps: Sequence[AttentionMap],
    marks: Sequence[Mark] = (),
    dpi: int = DPI,
    across: int = 2,
    width: float | None = None,
    padding: Mask | None = None,
) -> Picture:
    """Draw the image, and each map over the image in grey, all on one colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        heading: Text above the panels: image, network, label and prediction.
        maps: At least one map.
        marks: Patches to outline in every panel.
        dpi: Pixels per inch; the figure is 3.5 inches wide with two panels a row.
        across: Panels a row; more than two are too small for TensorBoard.
        width: Width of the figure in inches, by default so that each panel has half of TensorBoard's.
        padding: Pixels that are padding and no image: white in the image, in maps greys of the same lightness.

    Raises:
        UserError: If the image is no picture, if there is no map, or if a mark is no patch.
    """
    check_picture(image)
    check_maps(maps, image)
    patches = range(maps[0].patches.size)
    if outside := [mark.patch for mark in marks if mark.patch not in patches]:
        raise UserError(f"marks must be patches in 0..{patches[-1]}, got {outside}")
    figure_width = width or WIDTH * across / 2
    side = panel_width(across, GAP, width=figure_width)
    named = {mark.name: mark for mark in marks}  # a region may have several outlines
    legend = place_legend(list(named), figure_width - 2 * EDGE, dpi)
    below = 0.02 + LINE + (legend[-1].top + LEGEND_LINE if legend else 0.0)
    size = (side, side * panel_ratio(*image.shape[:2]))
    titles = Canvas(1, 1, dpi)
    above = 0.03 + LINE * max(1 + titles.wrap(overlaid.title, side, 2).count("\n") for overlaid in maps)
    grid = Grid(-(-(1 + len(maps)) // across), across, size, (GAP, LINE + above + 0.05), above=above, below=below)
    canvas, panels, bar = layout(heading, grid, dpi, figure_width)
    scale = Scale(100 * max(float(overlaid.patches.max()) for overlaid in maps), opacity=0.6)
    canvas.place(image if padding is None else np.where(padding[..., None], np.uint8(255), image), panels[0])
    title_above(canvas, "image", panels[0])
    _place_maps(canvas, panels[1:], maps, scale, grey_of(image), padding)
    for panel in panels[: 1 + len(maps)]:
        for mark in marks:
            _outline(canvas, mark, maps[0].patches.shape, panel)
    for entry in legend:
        left, top = EDGE + entry.left, bar.top - 0.08 - legend[-1].top - LEGEND_LINE + entry.top
        canvas.outline(Box(left, top + 0.03, 0.14, 0.12), MARK_COLOUR, 1.3, named[entry.name].line)
        canvas.write(entry.name, left + LEGEND_TEXT, top + 0.09, anchor="lm", most=entry.text_width)
    canvas.scale_bar(scale, bar, "% per patch")
    return canvas.pixels()


def _place_maps(
    canvas: Canvas,
    panels: Sequence[Box],
    maps: Sequence[AttentionMap],
    scale: Scale,
    grey: Float[np.ndarray, "height width 1"],
    padding: Mask | None,
) -> None:
    for panel, overlaid in zip(panels, maps, strict=False):
        canvas.place(scale.over(grey, 100 * overlaid.patches, padding), panel)
        title_above(canvas, overlaid.title, panel)
        below = f"+ {overlaid.prefix:.0%} on prefix" if overlaid.prefix > 0 else overlaid.note
        if padding is not None:
            on_padding = overlaid.patches[padded_patches(padding, overlaid.patches.shape)].sum()
            below = ", ".join(
                filter(None, [f"{on_padding:.0%} padding", below.removeprefix("+ ").replace(" on ", " ")])
            )
        caption(canvas, below, panel)


def padded_patches(padding: Mask, grid: tuple[int, ...]) -> Mask:
    """Find the patches whose pixels are all padding.

    Args:
        padding: Pixels that are padding.
        grid: Rows and columns of patches, which divide the image evenly.
    """
    rows, cols = (np.arange(side) * count // side for side, count in zip(padding.shape, grid, strict=True))
    found = np.ones(grid, dtype=bool)
    np.logical_and.at(found, np.ix_(rows, cols), padding)
    return found


def grey_of(image: Picture) -> Float[np.ndarray, "height width 1"]:
    """Luma of an image, from 0 to 255."""
    return (image @ LUMA)[..., None]


def draw_sheet(
    maps: Float[np.ndarray, "L H rows cols"],
    heading: str,
    prefix: Float[np.ndarray, "L H"] | None = None,
    dpi: int = DPI,
    numbers: Sequence[int] | None = None,
    width: float = WIDTH,
    padding: Mask | None = None,
) -> Picture:
    """Draw a query's attention in every layer (row) and head (column), on one colour scale from 0.

    Colours follow the square root, so that a head with all attention on one patch does not darken the rest.

    Args:
        maps: Fraction of the attention on each patch.
        heading: Text above the sheet.
        prefix: Fraction of the attention on prefix tokens: stated below each map where it has room, else their range.
        dpi: Pixels per inch.
        numbers: Indices of the layers, from 0; by default counted on.
        width: Width of the figure in inches.
        padding: Patches that are padding, drawn in greys of the same lightness.
    """
    check_values(maps, 4, "maps")
    if prefix is not None and prefix.shape != maps.shape[:2]:
        raise UserError(f"prefix must be of layers and heads {maps.shape[:2]}, got {prefix.shape}")
    down, across, rows, cols = maps.shape
    side = min(panel_width(across, 0.04, 0.42, width), max(0.3, MOST_HEIGHT / down) / panel_ratio(rows, cols))
    has_captions = prefix is not None and side > 0.55
    if has_captions and side <= 1:
        heading += "\nbelow each: + % on prefix"
    elif prefix is not None and not has_captions:
        heading += f"\n+ {prefix.min():.0%} to {prefix.max():.0%} on prefix"
    size, gap = (side, side * panel_ratio(rows, cols)), (0.04, LINE + 0.02 if has_captions else 0.04)
    grid = Grid(down, across, size, gap, left=0.42, above=0.4, below=LINE if has_captions else 0.0)
    canvas, panels, bar = layout(heading, grid, dpi, width)
    scale = Scale(100 * float(maps.max()), root=True)
    first, last = panels[0], panels[-1]
    table = Box(first.left, first.top, last.left + side + gap[0] - first.left, last.top + size[1] + gap[1] - first.top)
    axis_names(canvas, table, (down, across), numbers or range(down))
    for panel, (row, col) in zip(panels, np.ndindex(down, across), strict=True):
        canvas.place(scale.colours(100 * maps[row, col], padding), panel)
        if prefix is not None and has_captions:
            caption(canvas, f"+ {prefix[row, col]:.0%} on prefix" if side > 1 else f"+ {prefix[row, col]:.0%}", panel)
    canvas.scale_bar(scale, bar, "% per patch")
    return canvas.pixels()


def stack(pictures: Sequence[Picture]) -> Picture:
    """Stack pictures vertically, narrower ones padded with white at their right.

    Raises:
        UserError: If there are none.
    """
    if not pictures:
        raise UserError("at least one picture must be stacked, got none")
    for picture in pictures:
        check_picture(picture)
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.concatenate(padded)


def _outline(canvas: Canvas, mark: Mark, grid: tuple[int, ...], panel: Box) -> None:
    row, col = divmod(mark.patch, grid[1])
    one = panel.part(row, col, grid[0], grid[1])
    block = Box(one.left, one.top, mark.cols * one.width, mark.rows * one.height)
    canvas.outline(block, MARK_COLOUR, 1.3, mark.line)
