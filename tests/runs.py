"""Tiny runs of ``fit`` in this process, for the tests of what becomes of them."""

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
"""Three epochs of five steps, each with three batches of validation; a second or two."""
FEW = {"train": 2048, "val": 128, "test": 128}
"""Generated images, of which these runs need no more."""


def main(arguments: list[str]) -> int:
    """The program, with few images to generate."""
    with pytest.MonkeyPatch.context() as patched:
        for split, count in FEW.items():
            patched.setitem(coins.SIZES, split, count)
        return cli.main(arguments)


def fit(runs: Path, *options: str, code: int = 0) -> Path:
    """Begin a run; the folder that it made."""
    known = set(runs.glob("*/*"))
    assert main(["fit", *TINY, f"--runs={runs}", *options]) == code
    (folder,) = set(runs.glob("*/*")) - known
    return folder


def resume(folder: Path, *options: str, code: int = 0) -> None:
    """Go on with a run; no other folder comes of it."""
    known = set(folder.parent.iterdir())
    assert main(["fit", f"--resume={folder}", *options]) == code
    assert set(folder.parent.iterdir()) == known


def read(folder: Path, name: str = "last") -> dict[str, Any]:
    """A checkpoint of a run."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of a run, as TensorBoard's reader has them, in the order in which they were written.

    The reader takes the files of a run by their names, which end in a number that counts the writers of a process: here
    the 10th can come before the 9th. The files of two processes never differ in that number alone.
    """
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {tag: sorted(events.Scalars(tag), key=lambda each: each.wall_time) for tag in events.Tags()["scalars"]}
    return {tag: [(each.step, each.value) for each in values] for tag, values in scalars.items()}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What of two states is not the same, bit for bit: weights, averages, optimiser, schedule, step and epoch."""
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
    """Ask the next run to stop, as a signal does, when a hook is called the so manieth time at a step."""
    called, before, calls = getattr(RunControl, hook), [], []

    def asks(control: RunControl, trainer: Any, *arguments: Any, **options: Any) -> None:
        if trainer.global_step == step and not trainer.sanity_checking and not before:
            calls.append(hook)
            if len(calls) == time:
                before.append(hook)
                control.request.signum = signum
        called(control, trainer, *arguments, **options)

    monkeypatch.setattr(RunControl, hook, asks)
