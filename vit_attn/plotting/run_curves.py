"""Figure of a run's curves: loss, accuracy and learning rate by step."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vit_attn.plotting.scale import Picture

Row = Mapping[str, float]

STEP_COLOUR, TRAIN_COLOUR, VAL_COLOUR = "#b8cfe0", "#56b4e9", "#d55e00"


def draw_run(rows: Sequence[Row], title: str, dpi: int = 150) -> Picture:
    """Draw loss and accuracy in training and validation, and the learning rate.

    The mean of an epoch stands at its middle, since it is not of the network at the end, which is validated. The line
    of the validation is thin and lies on the wide one of the training, so that both are seen where they coincide. The
    legend has the last value of each line, and the best of the validation.

    Args:
        rows: Scalars by tag, with ``step``, as :func:`vit_attn.reports.metrics_table.read_metrics` gives them.
        title: Title of the figure.
        dpi: Pixels per inch; the figure is 7.6 inches wide.
    """
    figure = Figure(figsize=(7.6, 6.4), dpi=dpi)
    figure.suptitle(title, fontsize=11, x=0.09, ha="left")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    _draw_metric(loss, rows, "loss", np.min)
    _draw_metric(accuracy, rows, "accuracy", np.max)
    _draw_rates(rate, rows)
    rate.set_xlabel("step", fontsize=10)
    figure.subplots_adjust(0.09, 0.08, 0.98, 0.94, hspace=0.12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_metric(panel: Axes, rows: Sequence[Row], name: str, best: Callable[[np.ndarray], float]) -> None:
    steps, values = _series(rows, f"train/{name}")
    panel.plot(steps, values, color=STEP_COLOUR, linewidth=0.8, label=f"train, single steps{_last(values)}")
    steps, values = _series(rows, f"vit_epoch/train_{name}")
    middles = (steps + np.concatenate([[0.0], steps])[:-1]) / 2  # of the epochs that end at these steps
    panel.plot(middles, values, color=TRAIN_COLOUR, linewidth=4, label=f"train, mean of an epoch{_last(values)}")
    steps, values = _series(rows, f"val/{name}")
    found = f", best {best(values):.4g}" if len(values) else ""
    label = f"validation{_last(values)}{found}"
    panel.plot(steps, values, color=VAL_COLOUR, linewidth=1.4, marker="o", markersize=3, label=label)
    _finish(panel, name)


def _draw_rates(panel: Axes, rows: Sequence[Row]) -> None:
    parts = sorted({tag for row in rows for tag in row if tag.startswith("vit_learning_rate/")})
    for tag in parts:
        panel.plot(*_series(rows, tag), color=STEP_COLOUR, linewidth=1)
    label = "of the head; pale: of the other parts" if parts else "of all parts"
    panel.plot(*_series(rows, "train/learning_rate"), color="#000000", linewidth=1.4, label=label)
    _finish(panel, "learning rate")


def _finish(panel: Axes, name: str) -> None:
    panel.set_ylabel(name, fontsize=10)
    panel.tick_params(labelsize=9)
    panel.grid(linewidth=0.4, color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=9, frameon=False, loc="best")


def _series(rows: Sequence[Row], tag: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(row["step"] + 1, row[tag]) for row in rows if tag in row]  # steps that were taken by then
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps), np.array(values)


def _last(values: np.ndarray) -> str:
    return f": last {values[-1]:.4g}" if len(values) else ""
