import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import TINY, fit, main, read, resume
from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.task import Classifier
from vit_attn.training.checkpoint_io import WholeCheckpointIO

LONG = ["--trainer.max_epochs=1000"]


def send(signum: int, ready: threading.Event, after: float = 0.0) -> threading.Thread:
    """Send this process a real signal once the run is where it should be."""

    def wait() -> None:
        assert ready.wait(60)
        time.sleep(after)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_in_training_saves_and_says_so_by_its_exit_code(name: str, tmp_path: Path, monkeypatch, capsys):
    ready, signum = threading.Event(), signal.Signals[name]
    step = Classifier.training_step

    def train(task: Classifier, batch: Any, batch_idx: int) -> Any:
        if task.trainer.global_step >= 7:
            ready.set()
            time.sleep(0.03)
        return step(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", train)
    thread = send(signum, ready)
    run = fit(tmp_path / "runs", *LONG, code=128 + signum)
    thread.join()
    stopped = read(run)["global_step"]
    assert stopped >= 7
    assert f"stopped by {name} at step {stopped}: its state is in" in capsys.readouterr().err
    assert all(torch.isfinite(each).all() for each in read(run)["state_dict"].values())


def test_a_signal_in_validation_leaves_it_to_be_run_again(tmp_path: Path, monkeypatch):
    ready, calls = threading.Event(), []
    validate = Classifier.validation_step

    def slow(task: Classifier, batch: Any, batch_idx: int) -> None:
        if task.trainer.global_step == 10:
            calls.append(batch_idx)
            ready.set()
            time.sleep(0.3)
        validate(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "validation_step", slow)
    thread = send(signal.SIGTERM, ready)
    run = fit(tmp_path / "runs", code=143)
    thread.join()
    assert calls == [0]
    assert (read(run)["global_step"], read(run)["vit_attn"]["validation_pending"]) == (10, True)
    calls.clear()
    resume(run)
    assert calls == [0, 1, 2]
    assert read(run)["global_step"] == 15


def test_a_signal_during_a_save_waits_for_its_end(tmp_path: Path, monkeypatch):
    ready, save = threading.Event(), WholeCheckpointIO.save_checkpoint

    def slow(*arguments: Any, **options: Any) -> None:
        ready.set()
        time.sleep(0.3)
        save(*arguments, **options)

    monkeypatch.setattr(WholeCheckpointIO, "save_checkpoint", slow)
    thread = send(signal.SIGTERM, ready)
    run = fit(tmp_path / "runs", code=143)
    thread.join()
    assert set(os.listdir(run / "checkpoints")) == {"best.ckpt", "last.ckpt"}
    assert read(run)["global_step"] in (5, 6)


def test_a_signal_to_all_processes_of_a_run_does_not_take_its_workers_away(tmp_path: Path, monkeypatch):
    step = Classifier.training_step

    def train(task: Classifier, batch: Any, batch_idx: int) -> Any:
        if task.trainer.global_step == 7:
            workers = multiprocessing.active_children()
            assert len(workers) >= 2
            for process in (*(worker.pid for worker in workers), os.getpid()):
                os.kill(process or 0, signal.SIGTERM)
            time.sleep(0.3)
        return step(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", train)
    run = fit(tmp_path / "runs", "--data.loader=workers", "--data.num_workers=2", code=143)
    assert read(run)["global_step"] == 8


def poison(monkeypatch: pytest.MonkeyPatch, *steps: int) -> list[int]:
    """Make the loss of these steps, counted from 1, no number; the steps that were computed."""
    computed: list[int] = []
    training_step = Classifier.training_step

    def train(task: Classifier, batch: Any, batch_idx: int) -> Any:
        computed.append(task.trainer.global_step + 1)
        return training_step(task, batch, batch_idx) * (float("nan") if computed[-1] in steps else 1.0)

    monkeypatch.setattr(Classifier, "training_step", train)
    return computed


def test_an_update_that_is_not_finite_ends_the_run_with_its_address(tmp_path: Path, monkeypatch, capsys):
    computed = poison(monkeypatch, 27)
    options = ["--trainer.limit_train_batches=100", "--trainer.val_check_interval=25", "--checkpoint.minutes=0"]
    run = fit(tmp_path / "runs", *options, code=1)
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("vit-attn: step 27 (epoch 1, batch 27, learning rate 0.0")
    assert "the update is not finite and was not applied, nor was any after it" in told
    assert f"last good checkpoint: {run}/checkpoints/last.ckpt" in told
    assert computed[-1] <= 27 + 50
    assert read(run)["global_step"] == 25
    assert all(torch.isfinite(each).all() for each in read(run)["state_dict"].values())


def test_a_bad_step_is_seen_before_its_weights_are_saved(tmp_path: Path, monkeypatch, capsys):
    computed = poison(monkeypatch, 8)
    run = fit(tmp_path / "runs", code=1)
    assert read(run)["global_step"] == 5
    assert computed[-1] == 10
    assert "step 8 (epoch 2, batch 3, " in capsys.readouterr().err


def test_a_bad_step_can_be_replayed_from_the_last_good_checkpoint(tmp_path: Path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        poison(patched, 8)
        run = fit(tmp_path / "runs", code=1)
        computed = poison(patched, 8)
        capsys.readouterr()
        with pytest.warns(UserWarning, match="Error detected in"):
            resume(run, "--trainer.detect_anomaly=true", code=1)
    assert computed == [6, 7, 8]
    assert "vit-attn: step 8: Function 'MulBackward0' returned nan values" in capsys.readouterr().err


def test_updates_that_are_not_finite_are_skipped_and_counted_if_asked(tmp_path: Path, monkeypatch):
    poison(monkeypatch, 3, 8)
    with pytest.warns(UserWarning, match="1 updates were not finite and skipped, [12] so far") as told:
        run = fit(tmp_path / "runs", "--model.nonfinite=skip")
    assert read(run)["global_step"] == 15
    assert all(torch.isfinite(each).all() for each in read(run)["state_dict"].values())
    assert [str(each.message)[-8:] for each in told] == ["1 so far", "2 so far"]


def test_minutes_are_no_negative_number(capsys: pytest.CaptureFixture):
    assert main(["fit", *TINY, "--checkpoint.minutes=-1"]) == 2
    assert "checkpoint.minutes must be at least 0, got -1.0" in capsys.readouterr().err
    assert RunCheckpoint(minutes=0).due is False
