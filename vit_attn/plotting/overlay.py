"""Maps as pictures: over their image, or as a matrix of tokens by tokens.

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

MARK_COLOUR = "#ff2d55"


@dataclass(frozen=True)
class AttentionMap:
    """Where one query looks: the share of its attention that each patch receives, and CLS and registers together.

    Args:
        title: What stands over the map.
        patches: The shares; of relevance those of what fell on patches.
        prefix: What CLS and registers received, stated below the map.
        note: What is stated below a map without prefix, such as the class that it is of.
    """

    title: str
    patches: Float[np.ndarray, "rows cols"]
    prefix: float = 0.0
    note: str = ""


def shares_of(relevance: Float[np.ndarray, "rows cols"]) -> Float[np.ndarray, "rows cols"]:
    """What each patch holds of the relevance that fell on patches; all 0 where none did."""
    return relevance / max(float(relevance.sum()), 1e-12)


@dataclass(frozen=True)
class Mark:
    """A patch to outline, numbered row by row, or the first one of a block of patches.

    Args:
        name: What the outline is of.
        patch: The patch, or the upper left one.
        line: How it is drawn.
        rows: Patches of the block, downward.
        cols: Patches of the block, to the right.
    """

    name: str
    patch: int
    line: Literal["solid", "dotted"] = "solid"
    rows: int = 1
    cols: int = 1


def draw_overlays(
    image: Picture, title: str, maps: Sequence[AttentionMap], marks: Sequence[Mark] = (), dpi: int = 100
) -> Picture:
    """The image, and beside it each map over the image in grey, all on one numeric colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: What stands over the image.
        maps: At least one.
        marks: Patches to outline in every panel.
        dpi: Pixels an inch; a panel is 1.15 inches wide.

    Raises:
        UserError: If the image is no picture, if there is no map, or if a mark is no patch.
    """
    check_picture(image)
    check_maps(maps, image)
    patches = range(maps[0].patches.size)
    if outside := [mark.patch for mark in marks if mark.patch not in patches]:
        raise UserError(f"marks must be patches in 0..{patches[-1]}, got {outside}")
    height, width, _ = image.shape
    page, panels, bar = layout(
        (1, 1 + len(maps)), (1.15, 1.15 * height / width), gap=(0.06, 0.0), margin=(0.04, 0.2, 0.36), dpi=dpi
    )
    scale = Scale(100 * max(float(each.patches.max()) for each in maps), opacity=0.6)
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    page.place(image, panels[0])
    title_above(page, title, panels[0])
    for panel, each in zip(panels[1:], maps, strict=True):
        page.place(scale.over(grey, 100 * each.patches), panel)
        title_above(page, each.title, panel)
        below = f"+ {each.prefix:.0%} on prefix" if each.prefix > 0 else each.note
        caption(page, page.cut(below, panel.width, 7.5), panel)
    for panel in panels:
        for mark in marks:
            _outline(page, mark, maps[0].patches.shape, panel)
    _legend(page, marks, panels[0])
    page.scale_bar(scale, bar, "% a patch")
    return page.pixels()


def draw_matrices(
    layers: Float[np.ndarray, "L N N"],
    num_prefix_tokens: int,
    title: str,
    dpi: int = 100,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Who looks at whom: a matrix a layer, rows are queries and columns keys, on one numeric colour scale.

    Colours follow the square root, so that a single strong key does not blacken the rest.

    Args:
        layers: Attention by layer, heads fused.
        num_prefix_tokens: Tokens before the patches, set off by a line.
        title: What stands over the figure.
        dpi: Pixels an inch; a panel is 1.15 inches wide.
        numbers: Of the layers, from 0; all by default.
    """
    check_values(layers, 3, "layers")
    cols = min(len(layers), 3)
    rows = -(-len(layers) // cols)
    page, panels, bar = layout((rows, cols), (1.15, 1.15), gap=(0.16, 0.4), margin=(0.2, 0.2, 0.42), dpi=dpi)
    page.write(title, panels[0].left, 0.05, 8, "lt")
    scale = Scale(100 * float(layers.max()), root=True)
    for number, layer, panel in zip(numbers or range(len(layers)), layers, panels, strict=False):
        page.place(_ruled(scale.colours(100 * layer), num_prefix_tokens), panel)
        title_above(page, f"layer {number + 1}", panel)
        caption(page, "key", panel)
        page.write_upward("query", panel.left - 0.08, panel.top + panel.height / 2, 7.5)
    page.scale_bar(scale, bar, "% of attention")
    return page.pixels()


def draw_sheet(
    maps: Float[np.ndarray, "L H rows cols"],
    title: str,
    prefix: Float[np.ndarray, "L H"] | None = None,
    dpi: int = 100,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Every layer and head: where one query looks, on one numeric colour scale from 0.

    Colours follow the square root, so that a head that stares at one patch does not blacken the rest.

    Args:
        maps: Share of the attention that each patch receives.
        title: What stands over the figure.
        prefix: Share of the attention that went to prefix tokens, stated below each map.
        dpi: Pixels an inch; the sheet is about 5 inches wide.
        numbers: Of the layers, from 0; all by default.
    """
    check_values(maps, 4, "maps")
    if prefix is not None and prefix.shape != maps.shape[:2]:
        raise UserError(f"prefix must be of layers and heads {maps.shape[:2]}, got {prefix.shape}")
    names, places = ("layer", "head"), (numbers or range(len(maps)), range(maps.shape[1]))
    if maps.shape[1] < len(maps):  # the longer side goes across
        maps, names, places = maps.swapaxes(0, 1), ("head", "layer"), places[::-1]
        prefix = None if prefix is None else prefix.T
    down, across, rows, cols = maps.shape
    width = min(1.0, 4.6 / across)
    size, gap = (width, width * rows / cols), (0.05, 0.17 if prefix is not None else 0.05)
    page, panels, bar = layout((down, across), size, gap=gap, margin=(0.22, 0.24, 0.42), dpi=dpi)
    page.write(title, panels[0].left, 0.05, 8, "lt")
    scale = Scale(100 * float(maps.max()), root=True)
    for panel, (row, col) in zip(panels, np.ndindex(down, across), strict=True):
        page.place(scale.colours(100 * maps[row, col]), panel)
        if prefix is not None:
            caption(page, f"+ {prefix[row, col]:.0%}", panel)
        if row == 0:
            title_above(page, _numbered(names[1], places[1][col], width), panel)
        if col == 0:
            label = _numbered(names[0], places[0][row], size[1])
            page.write_upward(label, panel.left - 0.1, panel.top + panel.height / 2, 7.5)
    page.scale_bar(scale, bar, "% a patch")
    return page.pixels()


def _numbered(name: str, index: int, inches: float) -> str:
    return f"{name} {index + 1}" if inches > 0.55 else f"{index + 1}"


def stack(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, narrower ones with white at their right.

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


def layout(
    shape: tuple[int, int],
    panel: tuple[float, float],
    gap: tuple[float, float],
    margin: tuple[float, float, float],
    dpi: int,
) -> tuple[Canvas, list[Box], Box]:
    """A page, its panels row by row, and the place of the colour bar.

    Args:
        shape: Rows and columns of panels.
        panel: Width and height of a panel in inches.
        gap: Inches between panels, across and down.
        margin: Inches at the left, the bottom and the top.
        dpi: Pixels an inch.
    """
    (rows, cols), (width, height), (left, bottom, top) = shape, panel, margin
    full_width = left + cols * width + (cols - 1) * gap[0] + 0.62
    full_height = bottom + rows * height + (rows - 1) * gap[1] + top
    panels = [
        Box(left + col * (width + gap[0]), top + row * (height + gap[1]), width, height)
        for row, col in np.ndindex(rows, cols)
    ]
    return Canvas(full_width, full_height, dpi), panels, Box(full_width - 0.54, top, 0.09, full_height - bottom - top)


def _ruled(matrix: Picture, after: int) -> Picture:
    """A matrix with a white line after its first tokens."""
    if not after:
        return matrix
    each = max(1, -(-200 // len(matrix)))  # pixels a token, so that the line is thinner than one
    large = matrix.repeat(each, axis=0).repeat(each, axis=1)
    large[after * each - 1 : after * each + 1] = 255
    large[:, after * each - 1 : after * each + 1] = 255
    return large


def title_above(page: Canvas, text: str, panel: Box) -> None:
    """Words over a panel."""
    page.write(text, panel.centre, panel.top - 0.035, 8, "mb", panel.width + 0.04)


def caption(page: Canvas, text: str, panel: Box) -> None:
    """Words under a panel."""
    page.write(text, panel.centre, panel.top + panel.height + 0.02, 7.5, "mt")


def _outline(page: Canvas, mark: Mark, grid: tuple[int, ...], panel: Box) -> None:
    row, col = divmod(mark.patch, grid[1])
    one = panel.part(row, col, grid[0], grid[1])
    block = Box(one.left, one.top, mark.cols * one.width, mark.rows * one.height)
    page.outline(block, MARK_COLOUR, 1.3, mark.line)


def _legend(page: Canvas, marks: Sequence[Mark], panel: Box) -> None:
    """What the outlines are, below the image."""
    left = panel.left + 0.05
    for mark in {mark.name: mark for mark in marks}.values():  # a region may have several outlines
        page.outline(Box(left, panel.top + panel.height + 0.05, 0.12, 0.1), MARK_COLOUR, 1.3, mark.line)
        page.write(mark.name, left + 0.17, panel.top + panel.height + 0.1, 7.5, "lm")
        left += 0.6
