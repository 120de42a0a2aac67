"""Figures of maps: over their image, as sheets of heads, or as matrices of tokens by tokens.

TensorBoard shows a picture about 400 pixels wide and scales a larger one down without smoothing, so the figures are
made for that width; a higher ``dpi`` is for paper and web pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import Box, Canvas, Picture, Scale
from vit_attn.plotting.checks import check_maps, check_picture, check_values
from vit_attn.plotting.panels import LEGEND_TEXT, caption, layout, numbered_title, place_legend, title_above

MARK_COLOUR = "#ff2d55"
PANEL_WIDTH = 1.15


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
    image: Picture, title: str, maps: Sequence[AttentionMap], marks: Sequence[Mark] = (), dpi: int = 100
) -> Picture:
    """Draw the image, and beside it each map over the image in grey, all on one colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: Title above the image.
        maps: At least one map.
        marks: Patches to outline in every panel.
        dpi: Pixels per inch; a panel is 1.15 inches wide.

    Raises:
        UserError: If the image is no picture, if there is no map, or if a mark is no patch.
    """
    check_picture(image)
    check_maps(maps, image)
    patches = range(maps[0].patches.size)
    if outside := [mark.patch for mark in marks if mark.patch not in patches]:
        raise UserError(f"marks must be patches in 0..{patches[-1]}, got {outside}")
    height, width, _ = image.shape
    named = {mark.name: mark for mark in marks}  # a region may have several outlines
    legend = place_legend(list(named), PANEL_WIDTH + 0.04, dpi)
    bottom = 0.2 + max((entry.top for entry in legend), default=0.0)
    canvas, panels, bar = layout(
        (1, 1 + len(maps)),
        (PANEL_WIDTH, PANEL_WIDTH * height / width),
        gap=(0.06, 0.0),
        margin=(0.04, bottom, 0.36),
        dpi=dpi,
    )
    scale = Scale(100 * max(float(overlaid.patches.max()) for overlaid in maps), opacity=0.6)
    grey = grey_of(image)
    canvas.place(image, panels[0])
    title_above(canvas, title, panels[0])
    for panel, overlaid in zip(panels[1:], maps, strict=True):
        canvas.place(scale.over(grey, 100 * overlaid.patches), panel)
        title_above(canvas, overlaid.title, panel)
        below = f"+ {overlaid.prefix:.0%} on prefix" if overlaid.prefix > 0 else overlaid.note
        caption(canvas, canvas.cut(below, panel.width, 7.5), panel)
    for panel in panels:
        for mark in marks:
            _outline(canvas, mark, maps[0].patches.shape, panel)
    for entry in legend:
        left, top = panels[0].left + entry.left, panels[0].top + panels[0].height + entry.top
        canvas.outline(Box(left, top + 0.05, 0.12, 0.1), MARK_COLOUR, 1.3, named[entry.name].line)
        canvas.write(entry.name, left + LEGEND_TEXT, top + 0.1, 7.5, "lm", entry.text_width)
    canvas.scale_bar(scale, bar, "% per patch")
    return canvas.pixels()


def grey_of(image: Picture) -> Float[np.ndarray, "height width 1"]:
    """Luma of an image, from 0 to 255 (ITU-R BT.601)."""
    return (image @ np.array([0.299, 0.587, 0.114]))[..., None]


def draw_matrices(
    layers: Float[np.ndarray, "L N N"],
    num_prefix_tokens: int,
    title: str,
    dpi: int = 100,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Draw attention from every token to every token as a matrix per layer, rows are queries and columns keys.

    All are on one colour scale, by the square root, so that a single strong key does not darken the rest.

    Args:
        layers: Attention by layer, heads fused.
        num_prefix_tokens: Tokens before the patches, set off by a line.
        title: Title of the figure.
        dpi: Pixels per inch; a panel is 1.15 inches wide.
        numbers: Indices of the layers, from 0; by default counted on.
    """
    check_values(layers, 3, "layers")
    cols = min(len(layers), 3)
    rows = -(-len(layers) // cols)
    canvas, panels, bar = layout((rows, cols), (1.15, 1.15), gap=(0.16, 0.4), margin=(0.2, 0.2, 0.42), dpi=dpi)
    canvas.write(title, panels[0].left, 0.05, 8, "lt")
    scale = Scale(100 * float(layers.max()), root=True)
    for number, layer, panel in zip(numbers or range(len(layers)), layers, panels, strict=False):
        canvas.place(_ruled(scale.colours(100 * layer), num_prefix_tokens), panel)
        title_above(canvas, f"layer {number + 1}", panel)
        caption(canvas, "key", panel)
        canvas.write_upward("query", panel.left - 0.08, panel.top + panel.height / 2, 7.5)
    canvas.scale_bar(scale, bar, "% of attention")
    return canvas.pixels()


def draw_sheet(
    maps: Float[np.ndarray, "L H rows cols"],
    title: str,
    prefix: Float[np.ndarray, "L H"] | None = None,
    dpi: int = 100,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Draw a query's attention in every layer and head, on one colour scale from 0.

    Colours follow the square root, so that a head with all attention on one patch does not darken the rest.

    Args:
        maps: Fraction of the attention on each patch.
        title: Title of the figure.
        prefix: Fraction of the attention on prefix tokens, stated below each map.
        dpi: Pixels per inch; the sheet is about 5 inches wide.
        numbers: Indices of the layers, from 0; by default counted on.
    """
    check_values(maps, 4, "maps")
    if prefix is not None and prefix.shape != maps.shape[:2]:
        raise UserError(f"prefix must be of layers and heads {maps.shape[:2]}, got {prefix.shape}")
    names, indices = ("layer", "head"), (numbers or range(len(maps)), range(maps.shape[1]))
    if maps.shape[1] < len(maps):  # the longer side goes across
        maps, names, indices = maps.swapaxes(0, 1), ("head", "layer"), indices[::-1]
        prefix = None if prefix is None else prefix.T
    down, across, rows, cols = maps.shape
    width = min(1.0, 4.6 / across)
    size, gap = (width, width * rows / cols), (0.05, 0.05 if prefix is None else 0.17)
    canvas, panels, bar = layout((down, across), size, gap=gap, margin=(0.22, 0.24, 0.42), dpi=dpi)
    canvas.write(title, panels[0].left, 0.05, 8, "lt")
    scale = Scale(100 * float(maps.max()), root=True)
    for panel, (row, col) in zip(panels, np.ndindex(down, across), strict=True):
        canvas.place(scale.colours(100 * maps[row, col]), panel)
        if prefix is not None:
            caption(canvas, f"+ {prefix[row, col]:.0%}", panel)
        if row == 0:
            title_above(canvas, numbered_title(names[1], indices[1][col], width), panel)
        if col == 0:
            canvas.write_upward(
                numbered_title(names[0], indices[0][row], size[1]), panel.left - 0.1, panel.top + panel.height / 2, 7.5
            )
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


def _ruled(matrix: Picture, after: int) -> Picture:
    """Draw a white line after the first tokens of a matrix."""
    if not after:
        return matrix
    side = max(1, -(-200 // len(matrix)))  # pixels per token, so that the line is thinner than one
    large = matrix.repeat(side, axis=0).repeat(side, axis=1)
    large[after * side - 1 : after * side + 1] = 255
    large[:, after * side - 1 : after * side + 1] = 255
    return large


def _outline(canvas: Canvas, mark: Mark, grid: tuple[int, ...], panel: Box) -> None:
    row, col = divmod(mark.patch, grid[1])
    one = panel.part(row, col, grid[0], grid[1])
    block = Box(one.left, one.top, mark.cols * one.width, mark.rows * one.height)
    canvas.outline(block, MARK_COLOUR, 1.3, mark.line)
