"""Maps as pictures: over their image, or as a matrix of tokens by tokens.

TensorBoard shows a picture about 400 pixels wide and scales a larger one down without smoothing, so the figures are
made for that width; a higher ``dpi`` is for paper and web pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Picture = UInt8[np.ndarray, "_ _ 3"]

COLOURS = "viridis"
MARK_COLOUR = "#ff2d55"


@dataclass(frozen=True)
class Map:
    """Where one query looks: the share of its attention that each patch receives, and CLS and registers together."""

    title: str
    patches: Float[np.ndarray, "rows cols"]
    prefix: float = 0.0


@dataclass(frozen=True)
class Mark:
    """A patch to outline, numbered row by row."""

    name: str
    patch: int
    line: Literal["solid", "dotted"] = "solid"


def draw_overlays(
    image: Picture, title: str, maps: Sequence[Map], marks: Sequence[Mark] = (), dpi: int = 100
) -> Picture:
    """The image, and beside it each map over the image in grey, all on one numeric colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: What stands over the image.
        maps: At least one.
        marks: Patches to outline in every panel.
        dpi: Pixels an inch; a panel is 1.15 inches wide.
    """
    height, width, _ = image.shape
    figure, panels, bar = _layout(
        (1, 1 + len(maps)), (1.15, 1.15 * height / width), gap=(0.06, 0.0), margin=(0.04, 0.2, 0.36), dpi=dpi
    )
    grey = image @ np.array([0.299, 0.587, 0.114])
    scale = Normalize(0, 100 * max(float(each.patches.max()) for each in maps))
    placed: dict[str, Any] = {"extent": (0, width, height, 0), "interpolation": "nearest", "aspect": "auto"}

    panels[0].imshow(image, **placed)
    panels[0].set_title(title, fontsize=8, pad=3)
    for panel, each in zip(panels[1:], maps, strict=True):
        panel.imshow(grey, cmap="gray", vmin=0, vmax=255, **placed)
        panel.imshow(100 * each.patches, cmap=COLOURS, norm=scale, alpha=0.6, **placed)
        panel.set_title(each.title, fontsize=8, pad=3)
        if each.prefix > 0:
            panel.set_xlabel(f"+ {each.prefix:.0%} on prefix", fontsize=7.5, labelpad=2)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        for mark in marks:
            _outline(panel, mark, maps[0].patches.shape, (height, width))
    if marks:
        legend = {"ncols": len(marks), "handlelength": 1.0, "columnspacing": 0.8, "handletextpad": 0.4}
        panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, 0.06), fontsize=7.5, frameon=False, **legend)
    _label(figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar, alpha=0.6), "% a patch")
    return _pixels(figure)


def draw_matrices(layers: Float[np.ndarray, "L N N"], num_prefix_tokens: int, title: str, dpi: int = 100) -> Picture:
    """Who looks at whom: a matrix a layer, rows are queries and columns keys, on one numeric colour scale.

    Colours follow the square root, so that a single strong key does not blacken the rest.

    Args:
        layers: Attention by layer, heads fused.
        num_prefix_tokens: Tokens before the patches, set off by a line.
        title: What stands over the figure.
        dpi: Pixels an inch; a panel is 1.15 inches wide.
    """
    cols = min(len(layers), 3)
    rows = -(-len(layers) // cols)
    figure, panels, bar = _layout((rows, cols), (1.15, 1.15), gap=(0.22, 0.42), margin=(0.36, 0.32, 0.42), dpi=dpi)
    figure.suptitle(title, fontsize=8, y=1 - 0.04 / figure.get_figheight(), va="top")
    scale = PowerNorm(0.5, 0, 100 * float(layers.max()))
    for number, (panel, layer) in enumerate(zip(panels, layers, strict=False)):
        panel.imshow(100 * layer, cmap=COLOURS, norm=scale, interpolation="nearest")
        panel.set_title(f"layer {number + 1}", fontsize=8, pad=3)
        panel.locator_params(nbins=3)
        panel.tick_params(labelsize=7, length=2, pad=2)
        panel.set_xlabel("key", fontsize=7.5, labelpad=0)
        panel.set_ylabel("" if number % cols else "query", fontsize=7.5, labelpad=1)
        if num_prefix_tokens:
            panel.axhline(num_prefix_tokens - 0.5, color="white", linewidth=0.5)
            panel.axvline(num_prefix_tokens - 0.5, color="white", linewidth=0.5)
    for panel in panels[len(layers) :]:
        panel.axis("off")
    _label(figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar), "% of attention")
    return _pixels(figure)


def draw_sheet(
    maps: Float[np.ndarray, "L H rows cols"], title: str, prefix: Float[np.ndarray, "L H"] | None = None, dpi: int = 100
) -> Picture:
    """Every layer and head: where one query looks, on one numeric colour scale from 0.

    Colours follow the square root, so that a head that stares at one patch does not blacken the rest.

    Args:
        maps: Share of the attention that each patch receives.
        title: What stands over the figure.
        prefix: Share of the attention that went to prefix tokens, stated below each map.
        dpi: Pixels an inch; the sheet is about 5 inches wide.
    """
    layers, heads, rows, cols = maps.shape
    names = ("layer", "head")
    if heads < layers:  # the longer side goes across
        maps, names = maps.swapaxes(0, 1), ("head", "layer")
        prefix = None if prefix is None else prefix.T
    down, across = maps.shape[:2]
    width = min(1.0, 4.6 / across)
    panel, gap = (width, width * rows / cols), (0.05, 0.17 if prefix is not None else 0.05)
    figure, panels, bar = _layout((down, across), panel, gap=gap, margin=(0.3, 0.24, 0.42), dpi=dpi)
    figure.suptitle(title, fontsize=8, x=0.3 / figure.get_figwidth(), y=1 - 0.04 / figure.get_figheight(), ha="left")
    scale = PowerNorm(0.5, 0, 100 * float(maps.max()))
    for number, each in enumerate(panels):
        row, col = divmod(number, across)
        each.imshow(100 * maps[row, col], cmap=COLOURS, norm=scale, interpolation="nearest", aspect="auto")
        each.set(xticks=[], yticks=[])
        if prefix is not None:
            each.set_xlabel(f"+ {prefix[row, col]:.0%}", fontsize=7, labelpad=1)
        if row == 0:
            each.set_title(_numbered(names[1], col, width), fontsize=7.5, pad=2)
        if col == 0:
            each.set_ylabel(_numbered(names[0], row, panel[1]), fontsize=7.5, labelpad=2)
    _label(figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar), "% a patch")
    return _pixels(figure)


def _numbered(name: str, index: int, inches: float) -> str:
    return f"{name} {index + 1}" if inches > 0.55 or index == 0 else f"{index + 1}"


def stack(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, narrower ones with white at their right."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.concatenate(padded)


def _layout(
    shape: tuple[int, int],
    panel: tuple[float, float],
    gap: tuple[float, float],
    margin: tuple[float, float, float],
    dpi: int,
) -> tuple[Figure, list[Axes], Axes]:
    """A figure, its panels row by row, and the colour bar's axes.

    Everything is placed by arithmetic: with automatic layout a figure took 1.4 to 1.9 times as long.

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
    figure = Figure(figsize=(full_width, full_height), dpi=dpi)

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / full_width, y / full_height, w / full_width, h / full_height))

    panels = [
        axes(left + col * (width + gap[0]), bottom + (rows - 1 - row) * (height + gap[1]), width, height)
        for row in range(rows)
        for col in range(cols)
    ]
    return figure, panels, axes(full_width - 0.54, bottom, 0.09, full_height - bottom - top)


def _label(bar: Colorbar, text: str) -> None:
    bar.set_label(text, fontsize=7.5, labelpad=2)
    bar.ax.tick_params(labelsize=7, length=2, pad=2)


def _outline(panel: Axes, mark: Mark, grid: tuple[int, ...], size: tuple[int, int]) -> None:
    row, col = divmod(mark.patch, grid[1])
    height, width = size[0] / grid[0], size[1] / grid[1]
    corner = (col * width, row * height)
    style = {"fill": False, "edgecolor": MARK_COLOUR, "linewidth": 1.3, "linestyle": mark.line}
    panel.add_patch(Rectangle(corner, width, height, label=mark.name, **style))


def _pixels(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
