"""Figures of attention as matrices of tokens by tokens."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vit_attn.plotting.canvas import DPI
from vit_attn.plotting.checks import check_values
from vit_attn.plotting.panels import GAP, LINE, Grid, caption, layout, panel_width, title_above
from vit_attn.plotting.scale import Picture, Scale


def draw_matrices(
    layers: Float[np.ndarray, "L N N"],
    num_prefix_tokens: int,
    heading: str,
    dpi: int = DPI,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Draw attention from every token to every token as a matrix per layer, rows are queries and columns keys.

    All are on one colour scale, by the square root, so that a single strong key does not darken the rest.

    Args:
        layers: Attention by layer, heads fused.
        num_prefix_tokens: Tokens before the patches, set off by a line.
        heading: Text above the panels.
        dpi: Pixels per inch; the figure is 3.5 inches wide.
        numbers: Indices of the layers, from 0; by default counted on.
    """
    check_values(layers, 3, "layers")
    cols = 2 if len(layers) <= 4 else 3
    side = panel_width(cols, GAP, left=0.2)
    grid = Grid(-(-len(layers) // cols), cols, (side, side), (GAP, LINE + 0.06), 0.2, LINE + 0.03, LINE)
    canvas, panels, bar = layout(heading, grid, dpi)
    scale = Scale(100 * float(layers.max()), root=True)
    for number, layer, panel in zip(numbers or range(len(layers)), layers, panels, strict=False):
        canvas.place(_ruled(scale.colours(100 * layer), num_prefix_tokens), panel)
        title_above(canvas, f"layer {number + 1}", panel)
        if panel.left == panels[0].left:
            canvas.write_upward("query", panel.left - 0.1, panel.top + panel.height / 2)
    for panel in panels[max(0, len(layers) - cols) : len(layers)]:
        if panel.top == panels[-1].top or len(layers) <= cols:
            caption(canvas, "key", panel)
    canvas.scale_bar(scale, bar, "% of a query's attention per key")
    return canvas.pixels()


def _ruled(matrix: Picture, after: int) -> Picture:
    """Draw a white line after the first tokens of a matrix."""
    if not after:
        return matrix
    side = max(1, -(-200 // len(matrix)))  # pixels per token, so that the line is thinner than one
    large = matrix.repeat(side, axis=0).repeat(side, axis=1)
    large[after * side - 1 : after * side + 1] = 255
    large[:, after * side - 1 : after * side + 1] = 255
    return large
