"""Figures that compare networks on the same images: their maps, and the divergence of their heads."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import INK, Box, Picture, Scale
from vit_attn.plotting.checks import check_maps, check_picture, check_values
from vit_attn.plotting.overlay import AttentionMap, grey_of
from vit_attn.plotting.panels import caption, layout, title_above

SMALLEST_SCALE = 0.01
"""Smallest top of a scale of divergence, in nats: less is no difference, and should not look like one."""
LEAST_SHOWN = 0.005
"""Smallest value that is not 0 in the two decimals that a head has room for."""


def draw_side_by_side(
    image: Picture, title: str, networks: Mapping[str, Sequence[AttentionMap]], dpi: int = 100
) -> Picture:
    """Draw the image, and a row of its maps for each network, all on one colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: Title above the image.
        networks: Maps by the network's name, with the same titles and patches for each.
        dpi: Pixels per inch; a panel is 1.15 inches wide.

    Raises:
        UserError: If the image is no picture, if there is no map, or if the networks have other maps or patches.
    """
    check_picture(image)
    overlaid = [network_map for maps in networks.values() for network_map in maps]
    _check_same_maps(networks)
    check_maps(overlaid, image)
    height, width, _ = image.shape
    rows = list(networks.values())
    canvas, panels, bar = layout(
        (len(rows), 1 + len(rows[0])),
        (1.15, 1.15 * height / width),
        gap=(0.22, 0.22),
        margin=(0.04, 0.2, 0.36),
        dpi=dpi,
    )
    canvas.place(image, panels[0])
    title_above(canvas, title, panels[0])
    scale = Scale(100 * max(float(network_map.patches.max()) for network_map in overlaid), opacity=0.6)
    grey = grey_of(image)
    across = 1 + len(rows[0])
    for number, (name, maps) in enumerate(networks.items()):
        for panel, network_map in zip(panels[number * across + 1 :], maps, strict=False):
            canvas.place(scale.over(grey, 100 * network_map.patches), panel)
            if number == 0:
                title_above(canvas, network_map.title, panel)
            if network_map.prefix > 0:
                caption(canvas, f"+ {network_map.prefix:.0%} on prefix", panel)
        first = panels[number * across + 1]
        canvas.write_upward(name, first.left - 0.11, first.top + first.height / 2)
    canvas.scale_bar(scale, bar, "% per patch")
    return canvas.pixels()


def _check_same_maps(networks: Mapping[str, Sequence[AttentionMap]]) -> None:
    shown = {name: [(row.title, np.shape(row.patches)) for row in maps] for name, maps in networks.items()}
    if any(titles != next(iter(shown.values())) for titles in shown.values()):
        raise UserError(f"maps of the same patches are drawn side by side, got {shown}")


def draw_heads(values: Float[np.ndarray, "L H"], title: str, label: str, dpi: int = 100) -> Picture:
    """Draw a number per head as a coloured table on a scale from 0; the title says so where all are 0.

    Args:
        values: Numbers by layer and head, at least 0.
        title: Title of the figure.
        label: Quantity and unit, beside the scale.
        dpi: Pixels per inch; the figure is up to 5 inches wide.
    """
    check_values(values, 2)
    names = ("layer", "head")
    if values.shape[1] < len(values):  # the longer side goes across
        values, names = values.T, ("head", "layer")
    down, across = values.shape
    side = min(0.6, 4.2 / across)
    canvas, (table,), bar = layout(
        (1, 1), (side * across, max(side * down, 0.9)), gap=(0.0, 0.0), margin=(0.42, 0.08, 0.58), dpi=dpi
    )
    scale = Scale(max(float(values.max()), SMALLEST_SCALE))
    all_zero = float(values.max()) < LEAST_SHOWN
    canvas.write(f"{title}: no difference" if all_zero else title, table.left, 0.05, 8, "lt")
    canvas.write(names[1], table.centre, table.top - 0.2, 7.5, "mb")
    canvas.write_upward(names[0], table.left - 0.3, table.top + table.height / 2, 7.5)
    canvas.place(scale.colours(values), table)
    heights = scale.position(values)
    for row, col in np.ndindex(down, across):
        cell = table.part(row, col, down, across)
        if col == 0:
            canvas.write(str(row + 1), cell.left - 0.07, _middle(cell), 7.5, "rm")
        if row == 0:
            canvas.write(str(col + 1), cell.centre, cell.top - 0.05, 7.5, "mb")
        if side > 0.33:
            ink = INK if heights[row, col] > 0.6 else "white"
            canvas.write(_short(float(values[row, col])), cell.centre, _middle(cell), 7, "mm", colour=ink)
    canvas.scale_bar(scale, bar, label)
    return canvas.pixels()


def _middle(box: Box) -> float:
    return box.top + box.height / 2


def _short(value: float) -> str:
    """Format two decimals, without the zero before them."""
    return f"{value:.2f}".removeprefix("0")
