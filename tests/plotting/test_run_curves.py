import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure

from vit_attn.plotting.run_curves import TRAIN_COLOUR, VAL_COLOUR, _draw_metric, draw_run


def count(picture: np.ndarray, colour: str) -> int:
    return int((picture == np.round(255 * np.array(matplotlib.colors.to_rgb(colour)))).all(axis=-1).sum())


def test_lines_that_coincide_are_both_seen():
    rows = [
        {"step": step, **{name: 1 / step for name in ("vit_epoch/train_loss", "val/loss", "vit_epoch/train_accuracy")}}
        for step in range(1, 20)
    ]
    picture = draw_run(rows, "a run")
    assert min(count(picture, TRAIN_COLOUR), count(picture, VAL_COLOUR)) > 500


def test_a_run_without_validation_or_without_anything_is_drawn():
    assert draw_run([{"step": 0, "train/loss": 2.0}], "a run").shape == draw_run([], "a run").shape


def test_the_mean_of_an_epoch_stands_at_the_middle_of_the_epoch():
    panel = Figure().subplots()
    rows = [{"step": step, "vit_epoch/train_loss": 1.0} for step in (99, 199, 249)]
    _draw_metric(panel, rows, "loss", np.min)
    assert panel.lines[1].get_xdata().tolist() == [50, 150, 225]
