"""Figures that compare networks on the same images: their maps, and the divergence of their heads."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import DPI, INK
from vit_attn.plotting.checks import check_maps, check_picture, check_values
from vit_attn.plotting.overlay import AttentionMap, grey_of
from vit_attn.plotting.panels import GAP, LINE, Grid, axis_names, caption, layout, panel_width, title_above
from vit_attn.plotting.scale import Picture, Scale

SMALLEST_SCALE = 0.01
"""Smallest top of a scale of divergence, in nats: less is no difference, and should not look like one."""
LEAST_SHOWN = 0.005
"""Smallest value that is not 0 in the two decimals that a head has room for."""


def draw_side_by_side(
    image: Picture, heading: str, networks: Mapping[str, Sequence[AttentionMap]], dpi: int = DPI
) -> Picture:
    """Draw the image, and below it each map of every network side by side, all on one colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        heading: Text above the image.
        networks: Maps by the network's name, with the same titles and patches for each.
        dpi: Pixels per inch; the figure is 3.5 inches wide.

    Raises:
        UserError: If the image is no picture, if there is no map, or if the networks have other maps or patches.
    """
    check_picture(image)
    overlaid = [network_map for maps in networks.values() for network_map in maps]
    _check_same_maps(networks)
    check_maps(overlaid, image)
    cols, down = max(2, len(networks)), len(next(iter(networks.values())))
    side = panel_width(cols, GAP)
    size, above = (side, side * image.shape[0] / image.shape[1]), LINE + 0.03
    grid = Grid(1 + down, cols, size, (GAP, above + LINE + 0.05), above=above, below=LINE)
    canvas, panels, bar = layout(heading, grid, dpi)
    canvas.place(image, panels[0])
    title_above(canvas, "image", panels[0])
    scale = Scale(100 * max(float(network_map.patches.max()) for network_map in overlaid), opacity=0.6)
    grey = grey_of(image)
    for col, (name, maps) in enumerate(networks.items()):
        for panel, network_map in zip(panels[cols + col :: cols], maps, strict=False):
            canvas.place(scale.over(grey, 100 * network_map.patches), panel)
            title_above(canvas, f"{network_map.title}, {name}", panel)
            if network_map.prefix > 0:
                caption(canvas, f"+ {network_map.prefix:.0%} on prefix", panel)
    canvas.scale_bar(scale, bar, "% per patch")
    return canvas.pixels()


def _check_same_maps(networks: Mapping[str, Sequence[AttentionMap]]) -> None:
    shown = {name: [(row.title, np.shape(row.patches)) for row in maps] for name, maps in networks.items()}
    if any(titles != next(iter(shown.values())) for titles in shown.values()):
        raise UserError(f"maps of the same patches are drawn side by side, got {shown}")


def draw_heads(values: Float[np.ndarray, "L H"], heading: str, label: str, dpi: int = DPI) -> Picture:
    """Draw a number per layer (row) and head (column) as a coloured table on a scale from 0.

    Args:
        values: Numbers by layer and head, at least 0.
        heading: Text above the table, to which is added that all are 0 where they are.
        label: Quantity and unit of the scale.
        dpi: Pixels per inch; the figure is 3.5 inches wide.
    """
    check_values(values, 2)
    down, across = values.shape
    side = min(0.6, panel_width(across, 0.0, 0.42))
    if float(values.max()) < LEAST_SHOWN:
        heading += ": no difference"
    grid = Grid(1, 1, (side * across, down * min(side, max(0.2, 8 / down))), left=0.42, above=0.4)
    canvas, (table,), bar = layout(heading, grid, dpi)
    scale = Scale(max(float(values.max()), SMALLEST_SCALE))
    axis_names(canvas, table, (down, across), range(down))
    canvas.place(scale.colours(values), table)
    heights = scale.position(values)
    for row, col in np.ndindex(down, across) if side > 0.36 else ():
        cell = table.part(row, col, down, across)
        ink = INK if heights[row, col] > 0.6 else "white"
        text = _short(float(values[row, col]))
        canvas.write(text, cell.centre, cell.top + cell.height / 2, anchor="mm", colour=ink)
    canvas.scale_bar(scale, bar, label)
    return canvas.pixels()


def _short(value: float) -> str:
    """Format two decimals, without the zero before them."""
    return f"{value:.2f}".removeprefix("0")
