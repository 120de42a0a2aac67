from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import fit, read, resume
from vit_attn.task import Classifier


def poison(monkeypatch: pytest.MonkeyPatch, *steps: int) -> list[int]:
    """Make the loss of these steps, from 1, NaN; return the list of computed steps."""
    computed: list[int] = []
    training_step = Classifier.training_step

    def train(task: Classifier, batch: Any, batch_idx: int) -> Any:
        computed.append(task.trainer.global_step + 1)
        return training_step(task, batch, batch_idx) * (float("nan") if computed[-1] in steps else 1.0)

    monkeypatch.setattr(Classifier, "training_step", train)
    return computed


def test_an_update_that_is_not_finite_ends_the_run_with_its_location(tmp_path: Path, monkeypatch, capsys):
    computed = poison(monkeypatch, 27)
    options = ["--trainer.limit_train_batches=100", "--trainer.val_check_interval=25", "--checkpoint.minutes=0"]
    run = fit(tmp_path / "runs", *options, code=1)
    output = capsys.readouterr().err.strip().splitlines()[-1]
    assert output.startswith("vit-attn: step 27 (epoch 1, batch 27, learning rate 0.0")
    assert "the update is not finite and was not applied, nor was any after it" in output
    assert f"last good checkpoint: {run}/checkpoints/last.ckpt" in output
    assert computed[-1] <= 27 + 50
    assert read(run)["global_step"] == 25
    assert all(torch.isfinite(each).all() for each in read(run)["state_dict"].values())


def test_a_bad_step_is_detected_before_its_weights_are_saved(tmp_path: Path, monkeypatch, capsys):
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


def test_updates_that_are_not_finite_are_skipped_and_counted_if_allowed(tmp_path: Path, monkeypatch):
    poison(monkeypatch, 3, 8)
    with pytest.warns(UserWarning, match="1 updates were not finite and skipped, [12] so far") as output:
        run = fit(tmp_path / "runs", "--model.nonfinite=skip")
    assert read(run)["global_step"] == 15
    assert all(torch.isfinite(each).all() for each in read(run)["state_dict"].values())
    assert [str(each.message)[-8:] for each in output] == ["1 so far", "2 so far"]
