import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs import curves, fit, resume, stop_at
from vit_attn.reports.metrics_table import read_metrics

TIMED = ("vit_throughput/", "vit_epoch/images", "vit_epoch/seconds", "vit_epoch/input", "vit_final/")


def untimed(folder: Path) -> list[dict[str, float]]:
    return [
        {tag: value for tag, value in row.items() if not tag.startswith(TIMED)}
        for row in read_metrics(folder / "metrics.csv")
    ]


def test_a_stopped_and_resumed_run_has_the_files_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = fit(tmp_path / "whole", "--attention.num_images=1", "--attention.max_cost=1")
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", step=7)
        folder = fit(tmp_path / "stopped", "--attention.num_images=1", "--attention.max_cost=1", code=143)
    table = folder / "metrics.csv"
    table.write_text(table.read_text() + "7,2,0.12")  # as a kill leaves it
    resume(folder)
    steps = [row["step"] for row in untimed(folder)]
    assert steps == list(range(16))
    assert untimed(folder) == untimed(whole)
    logged = curves(folder, timed=True)
    columns = table.read_text().partition("\n")[0].split(",")
    assert columns[:2] == ["step", "epoch"]
    assert set(columns[2:]) == set(logged)
    assert [tag for tag, values in logged.items() if len(dict(values)) != len(values)] == []
    pictures = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert [event.step for event in pictures.Images("train/batch")] == [0]
    for name in ("train_batch.png", "curves.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_the_log_has_an_epoch_a_line_and_no_control_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", step=7)
        folder = fit(tmp_path, code=143)
    resume(folder)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert re.search(r"[^\n\x20-\uffff]", log) is None
    lines = log.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    texts = [line[21:] for line in lines]
    epochs = [text for text in texts if text.startswith("epoch ")]
    assert [text.partition(":")[0] for text in epochs] == [f"epoch {n}/3" for n in (1, 2, 3)]
    printed = capsys.readouterr()
    assert set(epochs) <= set(printed.out.splitlines())
    assert [text.split()[:2] for text in texts if text.startswith("vit-attn ")] == [["vit-attn", "fit"]] * 2
    assert any(text.startswith("SIGTERM at step 7") or "at step 7: its state is in" in text for text in texts)
    assert any(text.startswith("best validation accuracy") for text in texts)


def test_train_and_val_are_the_first_groups(tmp_path: Path):
    folder = fit(tmp_path, "--attention.num_images=1", "--trainer.max_epochs=1")
    tags = EventAccumulator(str(folder), size_guidance={"images": 1}).Reload().Tags()
    shown = sorted([*tags["scalars"], *tags["images"], *tags["histograms"]])
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in shown))
    assert groups[:2] == ["train", "val"]
    assert set(groups[2:]) <= {"vit_attention", "vit_epoch", "vit_final", "vit_throughput"}
    assert [tag for tag in tags["scalars"] if "rate" in tag] == ["train/learning_rate"]
    assert "custom_scalars__config__" in tags["tensors"]
