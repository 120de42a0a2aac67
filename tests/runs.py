"""Tiny runs of ``fit`` in this process, for tests of runs, their checkpoints and their resumption."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_attn import cli
from vit_attn.callbacks.run_control import RunControl
from vit_attn.data.datasets import coins

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL = ["depth=1", "embed_dim=16", "num_heads=2"]
TINY = [
    *("-c", str(CONFIGS / "quickstart.yaml"), "--data.batch_size=16", "--trainer.enable_progress_bar=false"),
    *("--trainer.max_epochs=3", "--trainer.limit_train_batches=5", "--trainer.limit_val_batches=3"),
    *("--trainer.log_every_n_steps=1", "--attention.num_images=0"),
    *(f"--model.arch_options.{option}" for option in SMALL),
]
"""Options of three epochs of five steps, each with three validation batches, in a second or two."""
BRIEF = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--data.batch_size=8"),
]
"""Options of one epoch of two steps, for any configuration."""
FEW = {"train": 2048, "val": 128, "test": 128}
"""Images to generate for each split, as many as these runs need."""


def main(arguments: list[str]) -> int:
    """Run the program with few images to generate."""
    with pytest.MonkeyPatch.context() as patched:
        for split, count in FEW.items():
            patched.setitem(coins.SIZES, split, count)
        return cli.main(arguments)


def fit(runs: Path, *options: str, code: int = 0) -> Path:
    """Start a run and return its folder."""
    known = set(runs.glob("*/*"))
    assert main(["fit", *TINY, f"--runs={runs}", *options]) == code
    (folder,) = set(runs.glob("*/*")) - known
    return folder


def resume(folder: Path, *options: str, code: int = 0) -> None:
    """Resume a run and check that it makes no other folder."""
    known = set(folder.parent.iterdir())
    assert main(["fit", f"--resume={folder}", *options]) == code
    assert set(folder.parent.iterdir()) == known


def read(folder: Path, name: str = "last") -> dict[str, Any]:
    """Read a checkpoint of a run."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


TIMED = (
    *("vit_final/images_per_second", "vit_final/minutes"),
    *(f"vit_epoch/{name}" for name in ("images_per_second", "seconds", "input_fraction")),
)
"""Scalars of a run's time that no other run has."""


def curves(folder: Path, timed: bool = False) -> dict[str, list[tuple[int, float]]]:
    """Read a run's scalars with TensorBoard's reader, in the order of writing, without times by default.

    The reader sorts the files of a run by name, and names end in the number of the writer within its process: here the
    10th can come before the 9th. The files of two processes never differ in that number alone.
    """
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {tag: sorted(events.Scalars(tag), key=lambda each: each.wall_time) for tag in events.Tags()["scalars"]}
    if not timed:
        scalars = {
            tag: each for tag, each in scalars.items() if tag not in TIMED and not tag.startswith("vit_throughput/")
        }
    return {tag: [(each.step, each.value) for each in values] for tag, values in scalars.items()}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """List the parts of two states that differ in any bit: weights, averages, optimiser, schedule, step and epoch."""
    names = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch")
    return [name for name in names if not _equal(one.get(name), other.get(name))]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def stop_at(monkeypatch: pytest.MonkeyPatch, hook: str, step: int, time: int = 1, signum: int = signal.SIGTERM) -> None:
    """Request a stop of the next run, as a signal does, at the ``time``-th call of a hook at a step."""
    original, requested, calls = getattr(RunControl, hook), [], []

    def request_stop(control: RunControl, trainer: Any, *arguments: Any, **options: Any) -> None:
        if trainer.global_step == step and not trainer.sanity_checking and not requested:
            calls.append(hook)
            if len(calls) == time:
                requested.append(hook)
                control.request.signum = signum
        original(control, trainer, *arguments, **options)

    monkeypatch.setattr(RunControl, hook, request_stop)
