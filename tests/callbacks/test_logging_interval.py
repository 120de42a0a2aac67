import csv

import pytest

from tests.runs import curves, fit
from vit_attn.callbacks.logging_interval import LONGEST, interval_for

UNSET = "--trainer.log_every_n_steps=null"


@pytest.mark.parametrize("steps", [1, 8, 30, 49, 50, 375, 2499, 2500, 70_000])
def test_a_curve_has_fifty_points_or_one_a_step(steps: int):
    interval = interval_for(steps)
    assert interval <= LONGEST
    assert steps // interval >= min(steps, 50)


def test_an_endless_run_is_logged_as_seldom_as_by_lightning():
    assert interval_for(float("inf")) == 50


def test_a_short_run_has_a_point_of_each_step_without_a_warning(tmp_path, capsys):
    run = fit(tmp_path, UNSET)
    assert [step for step, _ in curves(run)["train/loss"]] == list(range(15))
    with (run / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 15
    assert "warning" not in capsys.readouterr().err


def test_the_users_interval_is_kept(tmp_path, capsys):
    run = fit(tmp_path, "--trainer.log_every_n_steps=7")  # longer than an epoch of 5 steps, which is no mistake
    assert [step for step, _ in curves(run)["train/loss"]] == [6, 13]
    assert "warning" not in capsys.readouterr().err


def test_an_interval_longer_than_the_run_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"log_every_n_steps=50 is more than the 15 steps of the run, so it has no"):
        fit(tmp_path, "--trainer.log_every_n_steps=50")
