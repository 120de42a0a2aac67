"""Deletion and insertion of all methods and baselines on the same axes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import Picture
from vit_attn.plotting.checks import check_values

Curves = Mapping[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]]

STYLES = {
    "last layer": ("#000000", "-"),
    "rollout, mean": ("#0072b2", "-"),
    "rollout, max": ("#0072b2", "--"),
    "rollout, min": ("#0072b2", ":"),
    "rollout, discard 0.5": ("#56b4e9", "-"),
    "gradient rollout": ("#e69f00", "-"),
    "relevance": ("#d55e00", "--"),
    "LeGrad": ("#cc79a7", "-"),
    "random": ("#999999", "-"),
    "centre first": ("#999999", "--"),
}
"""Okabe and Ito's colours, which the colour-blind tell apart; variants of a method differ in their dashes."""


def draw_curves(curves: Curves, title: str, dpi: int = 150) -> Picture:
    """The mean probability of the named class while patches are deleted, and while they are inserted.

    Args:
        curves: By method, probabilities by deletion and by insertion, none of the patches first.
        title: What stands over the figure.
        dpi: Pixels an inch; the figure is 9.4 inches wide.

    Raises:
        UserError: If there are none, or if they are not finite.
    """
    if not curves:
        raise UserError("at least one curve must be drawn, got none")
    for method, pair in curves.items():
        for points in pair:
            if points.is_meta:
                raise UserError(f"the points of {method} are on the meta device, which holds no numbers")
            check_values(points.detach().cpu().numpy(), 1, f"the points of {method}")
    figure = Figure(figsize=(9.4, 3.4), dpi=dpi)
    figure.suptitle(title, fontsize=10, x=0.06, ha="left")
    panels = [figure.add_axes((left, 0.14, 0.36, 0.68)) for left in (0.06, 0.445)]
    names = ("deletion: lower is better", "insertion: higher is better")
    for which, (panel, name) in enumerate(zip(panels, names, strict=True)):
        _panel(panel, name, {method: pair[which].cpu().numpy() for method, pair in curves.items()})
    panels[0].set_ylabel("probability of the named class", fontsize=9)
    panels[1].tick_params(labelleft=False)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="center left", bbox_to_anchor=(0.82, 0.5), fontsize=8, frameon=False, handlelength=2.2
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panel(panel: Axes, name: str, curves: Mapping[str, np.ndarray]) -> None:
    for method, values in curves.items():
        colour, dashes = STYLES.get(method, ("#009e73", "-."))
        share = np.linspace(0, 100, len(values))
        panel.plot(share, values, color=colour, linestyle=dashes, linewidth=1.6, label=method, clip_on=False)
    panel.set_title(name, fontsize=9)
    panel.set(xlim=(0, 100), ylim=(0, 1))
    panel.set_xlabel("% of patches", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(linewidth=0.4, color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)
