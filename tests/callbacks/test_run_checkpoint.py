import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import TINY, curves, fit, main, read, resume
from vit_attn.callbacks import run_checkpoint
from vit_attn.task import Classifier
from vit_attn.training.checkpoint_io import WholeCheckpointIO


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Accuracies of the validations of the next run, in order; the losses are the same numbers."""
    values: list[float] = []

    def measure(task: Classifier, batch: Any, batch_idx: int) -> None:
        value = values[task.trainer.current_epoch]
        task.log("val/accuracy", value)
        task.log("val/loss", value)

    monkeypatch.setattr(Classifier, "validation_step", measure)
    return values


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Names and steps of the checkpoints that runs write, in order."""
    names: list[tuple[str, int]] = []
    save = WholeCheckpointIO.save_checkpoint

    def note(io: WholeCheckpointIO, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
        save(io, checkpoint, path, storage_options)
        names.append((Path(path).name, checkpoint["global_step"]))

    monkeypatch.setattr(WholeCheckpointIO, "save_checkpoint", note)
    return names


def test_last_is_the_state_after_the_last_validation_and_best_that_of_the_best(
    tmp_path: Path, accuracies: list[float], written: list[tuple[str, int]], capsys: pytest.CaptureFixture
):
    accuracies += [0.9, 0.2, 0.5]
    run = fit(tmp_path)
    assert [(read(run, name)["global_step"], read(run, name)["epoch"]) for name in ("best", "last")] == [
        (5, 0),
        (15, 2),
    ]
    assert written == [("best.ckpt", 5), ("last.ckpt", 5), ("last.ckpt", 10), ("last.ckpt", 15), ("last.ckpt", 15)]
    output = capsys.readouterr().out
    assert "best validation accuracy: 0.9000 (step 5, epoch 1), on 48 of 128 images\n" in output
    assert f"checkpoint: {run}/checkpoints/best.ckpt (step 5)\n" in output
    assert f"last state: {run}/checkpoints/last.ckpt (step 15)\n" in output


def test_the_last_state_is_written_every_few_minutes_of_training(tmp_path: Path, written, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(run_checkpoint.time, "monotonic", lambda: clock[0])
    batch_end = run_checkpoint.RunCheckpoint.on_train_batch_end

    def a_minute_later(*arguments: Any) -> None:
        clock[0] += 60
        batch_end(*arguments)

    monkeypatch.setattr(run_checkpoint.RunCheckpoint, "on_train_batch_end", a_minute_later)
    fit(tmp_path, "--checkpoint.minutes=3", "--trainer.max_epochs=2", "--trainer.limit_train_batches=8")
    assert [step for name, step in written if name == "last.ckpt"] == [3, 6, 8, 11, 14, 16, 16]
    written.clear()
    fit(tmp_path, "--checkpoint.minutes=0", "--trainer.max_epochs=1")
    assert [step for name, step in written if name == "last.ckpt"] == [5, 5]


def test_the_best_accuracy_is_reported_whichever_metrics_other_checkpoints_monitor(
    tmp_path: Path, accuracies: list[float], capsys: pytest.CaptureFixture
):
    accuracies += [0.4, 0.9, 0.2]
    others = [
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        *("--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=min", "--trainer.callbacks.filename=other"),
    ]
    run = fit(tmp_path, *others)
    output = capsys.readouterr().out
    assert "best validation accuracy: 0.9000 (step 10, epoch 2)" in output
    assert f"checkpoint: {run}/checkpoints/best.ckpt (step 10)\n" in output
    assert read(run, "other")["global_step"] == 15
    assert curves(run)["vit_final/best_val_accuracy"] == [(15, pytest.approx(0.9))]


def test_the_report_names_another_monitored_metric(tmp_path: Path, accuracies: list[float], capsys):
    accuracies += [0.4, 0.9, 0.2]
    run = fit(tmp_path, "--checkpoint.monitor=val/loss", "--checkpoint.mode=min")
    output = capsys.readouterr().out
    assert "best validation accuracy: 0.9000 (step 10, epoch 2)" in output
    assert f"checkpoint: {run}/checkpoints/best.ckpt (step 15), the best by val/loss: 0.2000\n" in output


def test_the_best_stays_the_best_in_a_resumed_run(tmp_path: Path, accuracies: list[float], capsys):
    accuracies += [0.4, 0.9, 0.2, 0.3, 0.95]
    run = fit(tmp_path / "runs", "--trainer.max_epochs=3")
    moved = run.rename(run.parent / "moved")
    capsys.readouterr()
    resume(moved, "--trainer.max_epochs=4")
    assert "best validation accuracy: 0.9000 (step 10, epoch 2)" in capsys.readouterr().out
    assert read(moved, "best")["global_step"] == 10
    resume(moved, "--trainer.max_epochs=5")
    assert read(moved, "best")["global_step"] == 25
    assert sorted(path.name for path in (moved / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("what", ["weights", "value"])
def test_weights_or_metrics_that_are_not_finite_are_never_the_best(
    what: str, tmp_path: Path, accuracies: list[float], monkeypatch
):
    accuracies += [0.4, float("nan") if what == "value" else 0.9, 0.3]
    if what == "weights":
        good: list[torch.Tensor] = []

        def poison(task: Classifier) -> None:
            bias: Any = task.net.head.bias
            good.append(bias.data.clone())
            if task.trainer.current_epoch == 1:
                bias.data[0] = float("nan")

        def heal(task: Classifier) -> None:
            bias: Any = task.net.head.bias
            bias.data.copy_(good.pop())

        monkeypatch.setattr(Classifier, "on_validation_epoch_end", poison)
        monkeypatch.setattr(Classifier, "on_validation_end", heal)
    with pytest.warns(UserWarning, match="step 10: val/accuracy or weights are not finite: not kept as the best"):
        run = fit(tmp_path)
    assert read(run, "best")["global_step"] == 5


def test_a_write_that_fails_ends_the_run_and_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch, capsys):
    replace, left = os.replace, [3]

    def full(source: str, target: str) -> None:
        if str(target).endswith(".ckpt"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    run = fit(tmp_path, "--checkpoint.monitor=null", "--checkpoint.save_top_k=0", code=1)
    output = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"vit-attn: checkpoint {run}/checkpoints/last.ckpt could not be written: no space is left on the disk "
        r"\(disk /.*, [\d.]+ of [\d.]+ GB free\)",
        output,
    )
    assert os.listdir(run / "checkpoints") == ["last.ckpt"]
    assert read(run)["global_step"] == 15
    monkeypatch.undo()
    resume(run)


def test_a_folder_without_room_is_refused_before_the_first_step(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(run_checkpoint, "checkpoint_bytes", lambda module: 10**15)
    steps: list[int] = []
    training_step = Classifier.training_step
    monkeypatch.setattr(
        Classifier, "training_step", lambda task, *batch: (steps.append(1), training_step(task, *batch))[1]
    )
    assert main(["fit", *TINY, f"--runs={tmp_path}"]) == 1
    assert "has too little room: checkpoints need 3000000.00 GB" in capsys.readouterr().err
    assert steps == []


def test_averaged_weights_are_kept_beside_those_that_train(tmp_path: Path, monkeypatch):
    average = ["--model.ema=0.5"]
    run = fit(tmp_path, *average)
    last, best = read(run), read(run, "best")
    name = "net.head.weight"
    assert not torch.equal(last["state_dict"][name], last["current_model_state"][name])
    assert not torch.equal(best["state_dict"][name], best["current_model_state"][name])
