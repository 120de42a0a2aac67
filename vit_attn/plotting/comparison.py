"""Two networks on the same images: where each looks, and how far apart their heads are."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import INK, Box, Picture, Scale
from vit_attn.plotting.checks import check_maps, check_picture, check_values
from vit_attn.plotting.overlay import AttentionMap, caption, layout, title_above

SMALLEST_SCALE = 0.01
"""Nats at the top of a scale of divergence, at least: less is no difference, and should not look like one."""

LEAST_SHOWN = 0.005
"""Below it, the two decimals that a head has room for are 0."""


def draw_side_by_side(
    image: Picture, title: str, networks: Mapping[str, Sequence[AttentionMap]], dpi: int = 100
) -> Picture:
    """The image, and a row of its maps for each network, all on one numeric colour scale from 0.

    Args:
        image: Pixels; any size, the patches divide it evenly.
        title: What stands over the image.
        networks: Maps by the network's name, with the same titles and patches for each.
        dpi: Pixels an inch; a panel is 1.15 inches wide.

    Raises:
        UserError: If the image is no picture, if there is no map, or if the networks have other maps or patches.
    """
    check_picture(image)
    shown = {name: [(each.title, np.shape(each.patches)) for each in maps] for name, maps in networks.items()}
    if any(each != next(iter(shown.values())) for each in shown.values()):
        raise UserError(f"maps of the same patches are drawn side by side, got {shown}")
    check_maps([each for maps in networks.values() for each in maps], image)
    height, width, _ = image.shape
    rows = list(networks.values())
    page, panels, bar = layout(
        (len(rows), 1 + len(rows[0])),
        (1.15, 1.15 * height / width),
        gap=(0.22, 0.22),
        margin=(0.04, 0.2, 0.36),
        dpi=dpi,
    )
    page.place(image, panels[0])
    title_above(page, title, panels[0])
    scale = Scale(100 * max(float(each.patches.max()) for row in rows for each in row), opacity=0.6)
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    across = 1 + len(rows[0])
    for number, (name, maps) in enumerate(networks.items()):
        for panel, each in zip(panels[number * across + 1 :], maps, strict=False):
            page.place(scale.over(grey, 100 * each.patches), panel)
            if number == 0:
                title_above(page, each.title, panel)
            if each.prefix > 0:
                caption(page, f"+ {each.prefix:.0%} on prefix", panel)
        first = panels[number * across + 1]
        page.write_upward(name, first.left - 0.11, first.top + first.height / 2)
    page.scale_bar(scale, bar, "% a patch")
    return page.pixels()


def draw_heads(values: Float[np.ndarray, "L H"], title: str, label: str, dpi: int = 100) -> Picture:
    """A number for each head, on a numeric colour scale from 0; says so where no head has any.

    Args:
        values: By layer and head, at least 0.
        title: What stands over the figure.
        label: What the numbers count, beside the scale.
        dpi: Pixels an inch; the figure is up to 5 inches wide.
    """
    check_values(values, 2)
    names = ("layer", "head")
    if values.shape[1] < len(values):  # the longer side goes across
        values, names = values.T, ("head", "layer")
    down, across = values.shape
    side = min(0.6, 4.2 / across)
    page, (whole,), bar = layout(
        (1, 1), (side * across, max(side * down, 0.9)), gap=(0.0, 0.0), margin=(0.42, 0.08, 0.58), dpi=dpi
    )
    scale = Scale(max(float(values.max()), SMALLEST_SCALE))
    nothing = float(values.max()) < LEAST_SHOWN
    page.write(f"{title}: no difference" if nothing else title, whole.left, 0.05, 8, "lt")
    page.write(names[1], whole.centre, whole.top - 0.2, 7.5, "mb")
    page.write_upward(names[0], whole.left - 0.3, whole.top + whole.height / 2, 7.5)
    page.place(scale.colours(values), whole)
    places = scale.place(values)
    for row, col in np.ndindex(down, across):
        cell = whole.part(row, col, down, across)
        if col == 0:
            page.write(str(row + 1), cell.left - 0.07, _middle(cell), 7.5, "rm")
        if row == 0:
            page.write(str(col + 1), cell.centre, cell.top - 0.05, 7.5, "mb")
        if side > 0.33:
            page.write(
                _short(float(values[row, col])),
                cell.centre,
                _middle(cell),
                7,
                "mm",
                colour=INK if places[row, col] > 0.6 else "white",
            )
    page.scale_bar(scale, bar, label)
    return page.pixels()


def _middle(box: Box) -> float:
    return box.top + box.height / 2


def _short(value: float) -> str:
    """Two decimals, without the zero before them."""
    return f"{value:.2f}".removeprefix("0")
