from pathlib import Path

import pytest
import torch

from tests.timed_runs import BATCH, FETCH, SAVE, STEP, VALIDATION, FailAt, Run, SaveAt
from vit_attn.callbacks import throughput
from vit_attn.callbacks.throughput import MINUTES, SPEED, Throughput

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
]


def test_speed_is_that_of_steps_and_input_and_the_rest_of_the_time_is_seen(tmp_path: Path):
    run = Run(tmp_path, callbacks=[SaveAt(tmp_path, 3)])
    assert run.recorder.of("images_per_second") == [BATCH / (STEP + FETCH)] * 6
    assert run.recorder.of("input_fraction") == [FETCH / (STEP + FETCH)] * 6
    total = FETCH + STEP + 100 + 3 * (STEP + FETCH)
    assert run.recorder.of("checkpoint_fraction")[1] == pytest.approx(SAVE / (total + SAVE))
    total += SAVE + 2 * (STEP + FETCH) + FETCH + VALIDATION
    assert run.recorder.of("validation_fraction")[3] == pytest.approx((FETCH + VALIDATION) / (total + 2 * 4))
    assert set(run.recorder.of("logging_fraction")) == {0.0}
    assert run.recorder.of("peak_memory_gb")[0] > 0.1
    assert [step for step, _ in run.recorder.values["vit_throughput/images_per_second"]] == [1, 3, 5, 7, 9, 11]
    assert run.recorder.values[SPEED] == [(12, 1.0)]
    assert run.recorder.values[MINUTES] == [(12, pytest.approx((100 + 12 * 4 + SAVE + 2 * (FETCH + VALIDATION)) / 60))]


def test_each_epoch_is_a_line_and_has_scalars(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = Run(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert lines[0].endswith(", acc 0.7500, 1.0 img/s, 1 min left")
    first, second = run.epochs()
    assert (first["step"], second["step"]) == (6, 12)
    assert (first["train_accuracy"], second["train_accuracy"]) == (3, 9)  # means of steps 2, 4, 6 and so on
    assert first["seconds"] == 100 + 6 * (STEP + FETCH) + FETCH + VALIDATION
    assert first["images_per_second"] == 1
    assert "mfu" not in first  # of a processor whose peak is not known


def test_an_epoch_without_a_logging_point_has_one_at_its_end(tmp_path: Path):
    run = Run(tmp_path, log_every_n_steps=50)
    assert run.recorder.of("images_per_second") == []
    assert [row["train_accuracy"] for row in run.epochs()] == [5, 11]
    assert [row["images_per_second"] for row in run.epochs()] == [1, 1]


def test_a_run_of_one_step_has_no_speed(tmp_path: Path):
    run = Run(tmp_path, max_steps=1, max_epochs=-1, log_every_n_steps=1)
    assert run.recorder.of("images_per_second") == []
    assert SPEED not in run.recorder.values
    assert run.epochs()[0]["step"] == 1
    assert "images_per_second" not in run.epochs()[0]


def test_a_trial_run_writes_nothing(tmp_path: Path):
    Run(tmp_path, fast_dev_run=2)
    assert not list(tmp_path.iterdir())


def test_a_run_that_died_continues_its_epochs_and_its_figures(tmp_path: Path):
    with pytest.raises(KeyError):
        Run(tmp_path, max_epochs=3, callbacks=[SaveAt(tmp_path, 3, 8), FailAt(14)])
    run = Run(tmp_path, max_epochs=3, ckpt_path=tmp_path / "8.ckpt")
    assert [row["step"] for row in run.epochs()] == [12, 18]
    assert run.epochs()[0]["train_accuracy"] == 9  # the mean over the epoch's logged steps, before and after
    assert run.callback.meter.done.batches == 18
    run = Run(tmp_path, max_epochs=3, ckpt_path=tmp_path / "3.ckpt")
    assert [row["step"] for row in run.epochs()] == [6, 12, 18]
    assert run.epochs()[0]["train_accuracy"] == 3


def test_a_new_run_from_a_checkpoint_has_figures_of_its_own(tmp_path: Path):
    Run(tmp_path, callbacks=[SaveAt(tmp_path, 8)])
    state = torch.load(tmp_path / "8.ckpt", weights_only=True)["callbacks"]["Throughput"]
    fresh = Throughput()
    fresh.load_state_dict(state)
    assert fresh.meter.usage() == Throughput().meter.usage()
    resumed = Throughput(resumed=True)
    resumed.load_state_dict(state | {"last_row": 6})  # as a checkpoint of an older version has it
    assert resumed.meter.usage().batches == 8


def positions(capsys: pytest.CaptureFixture) -> list[str]:
    return [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith(("epoch", "step"))]


def test_a_long_epoch_has_a_line_every_few_minutes_where_there_is_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(throughput, "LINE_SECONDS", 2 * (STEP + FETCH))
    Run(tmp_path, log_every_n_steps=1, max_epochs=1)
    assert positions(capsys) == ["epoch 0.2/1", "epoch 0.5/1", "epoch 0.8/1", "epoch 1/1"]
    monkeypatch.setattr(throughput, "is_interactive", lambda: True)
    Run(tmp_path, log_every_n_steps=1, max_epochs=1)
    assert positions(capsys) == ["epoch 1/1"]


def test_a_validation_within_an_epoch_has_a_line_and_a_run_of_steps_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    Run(tmp_path, val_check_interval=3, max_epochs=-1, max_steps=9)
    assert positions(capsys) == ["step 3/9", "step 6/9", "step 9/9"]
    Run(tmp_path, val_check_interval=3, max_epochs=1, max_steps=90)
    assert positions(capsys) == ["epoch 0.5/1", "epoch 1/1"]
