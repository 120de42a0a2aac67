"""Resumed runs with callbacks and loggers of the user."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest

from tests.runs import TINY, curves, differences, fit, main, read, resume, stop_at
from vit_attn.callbacks.run_control import RunControl
from vit_attn.task import Classifier

STOPPING = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
    *("--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=50"),
]


def stopped(folder: Path, hook: str, step: int, *options: str, time: int = 1) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, hook, step, time)
        return fit(folder, *options, code=143)


@pytest.mark.parametrize(("hook", "step"), [("on_train_epoch_end", 5), ("on_validation_batch_end", 10)])
def test_early_stopping_resumes_after_an_epoch(hook: str, step: int, tmp_path: Path):
    run = stopped(tmp_path / "runs", hook, step, *STOPPING)
    resume(run)
    assert differences(read(run), read(fit(tmp_path / "whole", *STOPPING))) == []


def test_the_state_before_an_epochs_end_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A kill after the validation of an epoch and before the end of the epoch."""
    end = RunControl.on_train_epoch_end

    def killed(control: RunControl, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 10:
            raise KeyboardInterrupt
        end(control, trainer, pl_module)

    with monkeypatch.context() as patched:
        patched.setattr(RunControl, "on_train_epoch_end", killed)
        run = fit(tmp_path / "runs", *STOPPING, code=130)
    assert read(run)["global_step"] == 10
    resume(run)
    assert differences(read(run), read(fit(tmp_path / "whole", *STOPPING))) == []


def test_a_signal_within_an_accumulation_waits_for_the_step(tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--trainer.accumulate_grad_batches=3", "--trainer.limit_train_batches=9"]
    run = stopped(tmp_path / "runs", "on_train_batch_end", 1, *options, time=2)
    assert f"at step {read(run)['global_step']}: its state" in capsys.readouterr().err
    assert read(run)["global_step"] == 2
    resume(run)
    assert differences(read(run), read(fit(tmp_path / "whole", *options))) == []


def test_a_validation_within_an_accumulation_is_not_interrupted(tmp_path: Path):
    options = ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"]
    options += ["--trainer.limit_train_batches=8"]
    run = stopped(tmp_path / "runs", "on_validation_batch_end", 1, *options)
    assert (read(run)["global_step"], read(run)["vit_attn"]["validation_pending"]) == (2, False)
    resume(run)
    whole = fit(tmp_path / "whole", *options)
    assert differences(read(run), read(whole)) == []
    assert curves(run) == curves(whole)


def test_a_repeated_validation_is_complete_after_another_stop(tmp_path: Path):
    run = stopped(tmp_path / "runs", "on_validation_batch_end", 10)
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_epoch_end", 10)
        resume(run, code=143)
    resume(run)
    assert curves(run) == curves(fit(tmp_path / "whole"))


def test_a_run_that_wants_to_end_early_and_must_not_is_not_finished(tmp_path: Path, monkeypatch):
    step = Classifier.training_step

    def asks(task: Classifier, batch: Any, batch_idx: int) -> Any:
        task.trainer.should_stop = True
        return step(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", asks)
    run = stopped(tmp_path / "runs", "on_train_batch_end", 7, "--trainer.min_epochs=3")
    assert read(run)["vit_attn"]["finished"] is False
    resume(run)
    assert read(run)["global_step"] == 15


def test_another_logger_does_not_change_the_folder_of_a_run(tmp_path: Path):
    options = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}"]
    run = stopped(tmp_path / "runs", "on_train_batch_end", 7, *options)
    best = read(run, "best")
    resume(run)
    assert read(run)["global_step"] == 15
    assert best["global_step"] == 5
    assert (run / "config.yaml").is_file()


def test_a_refused_resume_leaves_the_configuration_as_it_was(tmp_path: Path):
    run = stopped(tmp_path / "runs", "on_train_batch_end", 7)
    before = (run / "config.yaml").read_text()
    resume(run, "--data.batch_size=32", code=2)
    assert (run / "config.yaml").read_text() == before
    assert not list(run.glob("config.before-*"))
    resume(run)


def test_a_run_that_starts_from_a_checkpoint_has_its_own_best(tmp_path: Path):
    run = fit(tmp_path / "runs")
    known = set(run.parent.iterdir())
    longer = ["--trainer.max_epochs=4", f"--runs={tmp_path / 'runs'}"]
    assert main(["fit", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", *longer]) == 0
    (branch,) = set(run.parent.iterdir()) - known
    logged = curves(branch)
    assert logged["vit_final/best_val_accuracy"][0][1] == max(value for _, value in logged["val/accuracy"])


def test_a_callback_whose_state_cannot_be_read_back_is_found_at_the_first_write(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(RunControl, "state_dict", lambda control: {"mean": np.float64(0.5)})
    fit(tmp_path / "runs", code=1)
    assert "cannot be read back: some callback keeps a state that is not made of numbers" in capsys.readouterr().err


MISTAKES = {
    "several files of one name": (["--checkpoint.save_top_k=3"], "checkpoint.save_top_k=3 keeps several files"),
    "another folder": (["--checkpoint.dirpath=x"], "checkpoint.dirpath: a run keeps its checkpoints in its folder"),
    "no disk": (["--runs=memory://x"], "--runs must be a folder"),
    "none": (["--trainer.enable_checkpointing=false"], "a run keeps its checkpoints"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_checkpoint_settings_that_prevent_resuming_are_refused(name: str, capsys: pytest.CaptureFixture):
    options, message = MISTAKES[name]
    assert main(["fit", *TINY, *options]) == 2
    assert message in capsys.readouterr().err


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path, capsys):
    run = stopped(tmp_path / "runs", "on_train_batch_end", 12)
    resume(run, "--trainer.max_epochs=2", code=2)
    assert "has trained 2 epochs already: trainer.max_epochs=2 is less" in capsys.readouterr().err
