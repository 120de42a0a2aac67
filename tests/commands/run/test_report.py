from pathlib import Path

import pytest

from tests.runs import curves, fit, resume, stop_at
from vit_attn.reports.metrics_table import read_metrics


def test_a_stopped_and_resumed_run_has_a_line_and_a_row_for_each_epoch_and_reports_its_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", step=7)
        folder = fit(tmp_path, code=143)
    resume(folder)
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert lines == [f"epoch {epoch}/3" for epoch in (1, 2, 3)]
    rows = [row for row in read_metrics(folder / "metrics.csv") if "vit_epoch/seconds" in row]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 9), (3, 14)]
    assert all(row["vit_epoch/images_per_second"] > 0 and 0 <= row["val/accuracy"] <= 1 for row in rows)
    steps = [step for step, _ in curves(folder, timed=True)["vit_throughput/images_per_second"]]
    assert steps == [1, 2, 3, 4, 5, 6, *range(8, 15)]  # the first step of a process is not timed
    assert curves(folder, timed=True)["vit_final/images_per_second"][0][1] > 0


def test_the_report_has_speed_shares_of_the_time_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture):
    fit(tmp_path, "--trainer.max_epochs=1")
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert " images/s, " in lines["speed"]
    assert lines["speed"].endswith("FLOP per image")  # and no MFU, since no processor's peak is known
    assert "steps" in lines["time"]
    assert "start-up" in lines["time"]
    assert lines["peak memory"].endswith(" GB")


def test_a_run_without_validation_names_its_only_checkpoint_once(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = fit(tmp_path, "--trainer.max_steps=2", "--trainer.limit_val_batches=2")
    report = capsys.readouterr().out.partition("best validation accuracy: none, nothing was validated\n")[2]
    assert report.count(f"{folder}/checkpoints/last.ckpt (step 2)") == 1
