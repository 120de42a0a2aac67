"""Waits of the host in a training step, counted through the command on the CPU, with the gate as on a GPU."""

import functools
from pathlib import Path

import pytest

from tests.op_counter import OpCounter
from tests.runs import CONFIGS, curves, main
from vit_attn.commands.run import callbacks as run_callbacks
from vit_attn.task import Classifier
from vit_attn.training import gated_module
from vit_attn.training.update_gate import UpdateGate

RUN = [
    *("-c", str(CONFIGS / "cifar10.yaml"), "--data.dataset=coins", "--data.batch_size=16", "--trainer.max_steps=12"),
    *("--model.arch_options.embed_dim=32", "--model.arch_options.depth=2", "--model.arch_options.num_heads=2"),
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--attention.num_images=0"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=1", "--trainer.gradient_clip_val=1.0"),
]
ON_THE_HOST = (
    "device_dataset.py",  # indices of the batch, which the sampler has made
    "muon.py",  # AdamW's counters of steps
    "mixup.py",  # one_hot checks labels on the CPU only
)
"""Files that read tensors which are never on a GPU."""


def count(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> OpCounter:
    """Count from the start of one batch to the start of another in the next run."""
    counter = OpCounter(own_reads=True)
    original = Classifier.on_train_batch_start

    def switch(task: Classifier, batch, batch_idx: int) -> None:
        if batch_idx == first:
            counter.__enter__()
        if batch_idx == last:
            counter.__exit__(None, None, None)
        original(task, batch, batch_idx)

    monkeypatch.setattr(Classifier, "on_train_batch_start", switch)
    monkeypatch.setattr(gated_module, "UpdateGate", functools.partial(UpdateGate, avoid_sync=True))
    return counter


@pytest.mark.parametrize("bar", ["TQDMProgressBar", "RichProgressBar", "ours"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_no_step_between_two_logging_points_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: str, optimizer: str
):
    counter = count(monkeypatch, 2, 8)
    monkeypatch.setattr(run_callbacks, "is_interactive", lambda: True)  # else there is no bar
    options = [] if bar == "ours" else [f"--trainer.callbacks={bar}"]
    options += [f"--model.optimizer={optimizer}", "--trainer.log_every_n_steps=10"]
    assert main(["fit", *RUN, *options, f"--runs={tmp_path}"]) == 0
    assert counter.launches > 6 * 300
    assert [place for place in counter.places if not any(name in place for name in ON_THE_HOST)] == []


def test_accuracy_and_norm_are_logged_with_the_loss_at_the_same_steps(tmp_path: Path):
    assert main(["fit", *RUN, "--trainer.log_every_n_steps=4", f"--runs={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    logged = curves(folder)
    for name in ("train/loss", "train/accuracy", "train/grad_norm"):
        assert [step for step, _ in logged[name]] == [3, 7, 11]
    assert all(0 <= value <= 1 for _, value in logged["train/accuracy"])
    assert all(value > 0 for _, value in logged["train/grad_norm"])
