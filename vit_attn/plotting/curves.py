"""Deletion and insertion curves of all methods and baselines on the same axes."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from vit_attn.attention_maps.evaluation.report import BASELINES
from vit_attn.attention_maps.methods.registry import attribution_methods
from vit_attn.errors import UserError
from vit_attn.plotting.canvas import Colour
from vit_attn.plotting.checks import check_values
from vit_attn.plotting.scale import Picture

Curves = Mapping[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]]

PALETTE = ("#000000", "#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#f0e442")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
BASELINE_COLOUR, BASELINE_DASHES = "#999999", ("-", "--")


def line_styles() -> dict[str, tuple[Colour, str]]:
    """Colour and dashes of every registered method and baseline, by label.

    A method without a colour of its own gets the next one that no other method has.
    """
    methods = attribution_methods().values()
    used = {method.colour for method in methods}
    free = itertools.cycle([colour for colour in PALETTE if colour not in used] or PALETTE)
    styles = {method.label: (method.colour or next(free), method.dashes) for method in methods}
    return styles | {label: (BASELINE_COLOUR, dashes) for label, dashes in zip(BASELINES, BASELINE_DASHES, strict=True)}


def draw_curves(curves: Curves, title: str, dpi: int = 150, margins: Curves | None = None) -> Picture:
    """Draw the mean probability of the predicted class as patches are deleted, and as they are inserted.

    The legend has the areas under both curves. Lines become thinner in the order of the methods, so that each is seen
    where several coincide.

    Args:
        curves: Probabilities by deletion and by insertion, the first point for none of the patches, by the method's
            label; a label without a style of its own gets another one.
        title: Title of the figure.
        dpi: Pixels per inch; the figure is 10.4 inches wide.
        margins: Half-widths of the 95 % intervals of the points over the images, drawn as bands.

    Raises:
        UserError: If there are no curves, or if they are not finite.
    """
    if not curves:
        raise UserError("at least one curve must be drawn, got none")
    for method, pair in curves.items():
        for points in pair:
            if points.is_meta:
                raise UserError(f"the points of {method} are on the meta device, which holds no numbers")
            check_values(points.detach().cpu().numpy(), 1, f"the points of {method}")
    figure = Figure(figsize=(10.4, 3.6), dpi=dpi)
    figure.suptitle(title, fontsize=10, x=0.055, ha="left")
    panels = [figure.add_axes((left, 0.14, 0.325, 0.68)) for left in (0.055, 0.4)]
    names = ("deletion: lower is better", "insertion: higher is better")
    for index, (panel, name) in enumerate(zip(panels, names, strict=True)):
        bands = {method: pair[index].cpu().numpy() for method, pair in (margins or {}).items()}
        _draw_panel(panel, name, {method: pair[index].cpu().numpy() for method, pair in curves.items()}, bands)
    panels[0].set_ylabel("probability of the predicted class", fontsize=9)
    panels[1].tick_params(labelleft=False)
    lines, methods = panels[0].get_legend_handles_labels()
    areas = [" / ".join(f"{_area(points):.3f}" for points in curves[method]) for method in methods]
    figure.legend(
        lines,
        [f"{area}  {method}" for area, method in zip(areas, methods, strict=True)],
        title="area: deletion / insertion" + ("\nband: 95 % of the mean over images" if margins else ""),
        loc="center left",
        bbox_to_anchor=(0.735, 0.5),
        frameon=False,
        handlelength=2.2,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _area(points: Float[Tensor, " points"]) -> float:
    """Area under a curve over the fraction of patches, by the trapezoid rule."""
    return float(torch.trapezoid(points) / (len(points) - 1))


def _draw_panel(panel: Axes, title: str, curves: Mapping[str, np.ndarray], margins: Mapping[str, np.ndarray]) -> None:
    styles = line_styles()
    widths = np.linspace(4.0, 1.2, len(curves)) if len(curves) > 1 else [1.6]
    for (method, values), width in zip(curves.items(), widths, strict=True):
        colour, dashes = styles.get(method, ("#009e73", "-."))
        percent = np.linspace(0, 100, len(values))
        if method in margins:
            band = margins[method]
            panel.fill_between(percent, values - band, values + band, color=colour, alpha=0.08, linewidth=0)
        panel.plot(percent, values, color=colour, linestyle=dashes, linewidth=width, label=method, clip_on=False)
    panel.set_title(title, fontsize=9)
    panel.set(xlim=(0, 100), ylim=(0, 1))
    panel.set_xlabel("% of patches", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(linewidth=0.4, color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)
