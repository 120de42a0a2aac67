"""Maps as pictures: over their image, or as a matrix of tokens by tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
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


def draw_overlays(image: Picture, title: str, maps: Sequence[Map], marks: Sequence[Mark] = ()) -> Picture:
    """The image, and beside it each map over the image in grey, all on one numeric colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: What stands over the image.
        maps: At least one.
        marks: Patches to outline in every panel.
    """
    height, width, _ = image.shape
    figure, panels, bar = _layout(1, 1 + len(maps), 2.2, 2.2 * height / width, gap=(0.12, 0.0), margin=(0.06, 0.3, 0.5))
    grey = image @ np.array([0.299, 0.587, 0.114])
    scale = Normalize(0, 100 * max(float(each.patches.max()) for each in maps))
    placed: dict[str, Any] = {"extent": (0, width, height, 0), "interpolation": "nearest", "aspect": "auto"}

    panels[0].imshow(image, **placed)
    panels[0].set_title(title, fontsize=11)
    for panel, each in zip(panels[1:], maps, strict=True):
        panel.imshow(grey, cmap="gray", vmin=0, vmax=255, **placed)
        panel.imshow(100 * each.patches, cmap=COLOURS, norm=scale, alpha=0.6, **placed)
        panel.set_title(each.title, fontsize=11)
        if each.prefix > 0:
            panel.set_xlabel(f"not shown: {each.prefix:.0%} on prefix tokens", fontsize=9)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        for mark in marks:
            _outline(panel, mark, maps[0].patches.shape, (height, width))
    if marks:
        panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=len(marks), fontsize=9, frameon=False)
    figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar, alpha=0.6).set_label("attention on a patch, %", fontsize=9)
    return _pixels(figure)


def draw_matrices(layers: Float[np.ndarray, "L N N"], num_prefix_tokens: int, title: str) -> Picture:
    """Who looks at whom: a matrix a layer, rows are queries and columns keys, on one numeric colour scale.

    Colours follow the square root, so that a single strong key does not blacken the rest.

    Args:
        layers: Attention by layer, heads fused.
        num_prefix_tokens: Tokens before the patches, set off by a line.
        title: What stands over the figure.
    """
    cols = min(len(layers), 4)
    rows = -(-len(layers) // cols)
    figure, panels, bar = _layout(rows, cols, 2.4, 2.4, gap=(0.3, 0.6), margin=(0.5, 0.45, 0.6))
    figure.suptitle(title, fontsize=11)
    scale = PowerNorm(0.5, 0, 100 * float(layers.max()))
    for number, (panel, layer) in enumerate(zip(panels, layers, strict=False)):
        panel.imshow(100 * layer, cmap=COLOURS, norm=scale, interpolation="nearest")
        panel.set_title(f"layer {number + 1}", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.set_xlabel("key", fontsize=9, labelpad=1)
        panel.set_ylabel("" if number % cols else "query", fontsize=9)
        if num_prefix_tokens:
            panel.axhline(num_prefix_tokens - 0.5, color="white", linewidth=0.5)
            panel.axvline(num_prefix_tokens - 0.5, color="white", linewidth=0.5)
    for panel in panels[len(layers) :]:
        panel.axis("off")
    figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar).set_label("attention, %", fontsize=9)
    return _pixels(figure)


def _layout(
    rows: int, cols: int, width: float, height: float, gap: tuple[float, float], margin: tuple[float, float, float]
) -> tuple[Figure, list[Axes], Axes]:
    """A figure, its panels row by row, and the colour bar's axes.

    Everything is in inches, placed by arithmetic: automatic layout takes twice as long as all the rest of a figure.

    Args:
        rows: Rows of panels.
        cols: Columns of panels.
        width: Width of a panel.
        height: Height of a panel.
        gap: Between panels, across and down.
        margin: Left, bottom and top.
    """
    left, bottom, top = margin
    full_width = left + cols * width + (cols - 1) * gap[0] + 0.85
    full_height = bottom + rows * height + (rows - 1) * gap[1] + top
    figure = Figure(figsize=(full_width, full_height), dpi=100)

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / full_width, y / full_height, w / full_width, h / full_height))

    panels = [
        axes(left + col * (width + gap[0]), bottom + (rows - 1 - row) * (height + gap[1]), width, height)
        for row in range(rows)
        for col in range(cols)
    ]
    return figure, panels, axes(full_width - 0.7, bottom, 0.12, full_height - bottom - top)


def _outline(panel: Axes, mark: Mark, grid: tuple[int, ...], size: tuple[int, int]) -> None:
    row, col = divmod(mark.patch, grid[1])
    height, width = size[0] / grid[0], size[1] / grid[1]
    corner = (col * width, row * height)
    style = {"fill": False, "edgecolor": MARK_COLOUR, "linewidth": 1.8, "linestyle": mark.line}
    panel.add_patch(Rectangle(corner, width, height, label=mark.name, **style))


def _pixels(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
