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
    """Send this process a real signal once ``ready`` is set."""

    def wait() -> None:
        assert ready.wait(60)
        time.sleep(after)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_in_training_saves_the_state_and_sets_the_exit_code(name: str, tmp_path: Path, monkeypatch, capsys):
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


def test_a_signal_in_validation_lets_the_resumed_run_repeat_it(tmp_path: Path, monkeypatch):
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


def test_a_signal_to_all_processes_of_a_run_does_not_end_its_workers(tmp_path: Path, monkeypatch):
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


def test_negative_minutes_are_refused(capsys: pytest.CaptureFixture):
    assert main(["fit", *TINY, "--checkpoint.minutes=-1"]) == 2
    assert "checkpoint.minutes must be at least 0, got -1.0" in capsys.readouterr().err
    assert RunCheckpoint(minutes=0).due is False
