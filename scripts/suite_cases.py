"""What the parts of the GPU suite share: a case, and how a case trains."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import measured_with
import training_runs
import yaml
from training_runs import ROOT, FinishedRun

TOY_TRAINER = (
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.limit_train_batches=2"),
    "--trainer.log_every_n_steps=1",
)
SMOKE = (
    *TOY_TRAINER,
    *("--data.dataset=folder", "--data.img_size=32", "--data.batch_size=4"),
    *("--model.arch_options.depth=1", "--model.arch_options.embed_dim=24", "--model.arch_options.num_heads=2"),
)
"""Options of a run at toy size."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        name: Its name within the part.
        minutes: Estimated minutes, at most.
        measure: Returns its figures.
        command: The command that it stands for.
    """

    name: str
    minutes: float
    measure: Callable[[], dict[str, Any]]
    command: str


@dataclass(frozen=True)
class Part:
    """A list of cases.

    Args:
        minutes: Estimated minutes of all.
        purpose: What they are measured for.
        cases: Makes them.
    """

    minutes: float
    purpose: str
    cases: Callable[["Suite"], list[Case]]


@dataclass(frozen=True)
class Suite:
    """Where and how the suite measures.

    Args:
        out: Folder of the results.
        data: Folder of CIFAR-10; None for the variable ``VIT_ATTN_DATA``.
        target: Data set of fine-tuning, or a folder of pictures.
        smoke: Whether everything is tried at toy size on the CPU.
        context: Commit, versions, device and date.
    """

    out: Path
    data: Path | None
    target: str
    smoke: bool
    context: dict[str, str] = field(default_factory=measured_with.context)

    @cached_property
    def has_gpu(self) -> bool:
        """Whether torch has a GPU."""
        import torch

        return torch.cuda.is_available()

    @property
    def root(self) -> str:
        """Folder of CIFAR-10."""
        return str(self.data or os.environ.get("VIT_ATTN_DATA") or "data")

    @property
    def final(self) -> tuple[str, ...]:
        """Options of a final run; pictures of a smoke test have no held-out split to train on."""
        return training_runs.FINAL[1:] if self.smoke else training_runs.FINAL

    def options(self, config: str, *options: str) -> list[str]:
        """Options of a run of one of the configurations.

        Args:
            config: Name of the file in ``configs`` without its ending.
            options: Other options.
        """
        path = ROOT / "configs" / f"{config}.yaml"
        common = [f"--data.root={self.root}"] if self.data or self.smoke else []
        if not self.smoke:
            return ["-c", str(path), *common, *options]
        plain = [each for each in options if not each.startswith("--model.compile")]
        return ["-c", str(path), *common, *plain, *SMOKE, *_uncompiled(path)]

    def fit(self, name: str, config: str, *options: str) -> FinishedRun:
        """Train by a configuration."""
        return training_runs.fit(self.options(config, *options), self.out / "runs", name)

    def epochs(self, number: int) -> int:
        """Epochs of a run; one in a smoke test."""
        return 1 if self.smoke else number


def command(config: str, *options: str) -> str:
    """The command of a run, as a reader would type it."""
    return shlex.join(["vit-attn", "fit", "-c", f"configs/{config}.yaml", *options])


def _uncompiled(path: Path) -> list[str]:
    """Options that turn off all compilation of a configuration, which takes a minute on a CPU."""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        f"--{section}.{name}=false"
        for section in ("model", "data")
        for name, value in settings.get(section, {}).items()
        if name.startswith("compile") and value is True
    ]
