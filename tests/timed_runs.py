"""Runs of a small task on a clock that passes when it is told to, for tests of times and speeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from vit_attn.callbacks.throughput import Throughput

BATCH, FEATURES = 4, 6
FLOPS = 3 * 2 * FEATURES
"""Of training on one image of the network below: one multiply-add for each feature, backward twice the forward."""
STEP, FETCH, VALIDATION, SAVE = 3.0, 1.0, 50.0, 7.0
"""Seconds that the parts of the runs below take."""


class Seconds:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Batches(IterableDataset):
    """Batches, each of which takes its time."""

    def __init__(self, time: Seconds, count: int, sized: bool = True) -> None:
        self.time, self.count = time, count
        if sized:
            self.__class__ = SizedBatches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.count):
            self.time.now += FETCH
            yield torch.ones(BATCH, FEATURES), torch.zeros(BATCH)


class SizedBatches(Batches):
    def __len__(self) -> int:
        return self.count


class Task(L.LightningModule):
    """Linear regression whose steps take their time; a longer one at the first."""

    def __init__(self, time: Seconds) -> None:
        super().__init__()
        self.net, self.time = nn.Linear(FEATURES, 1, bias=False), time

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.time.now += STEP + (100 if self.trainer.fit_loop.total_batch_idx == 0 else 0)
        self.log("train/accuracy", torch.tensor(float(self.trainer.global_step)))
        loss = self.net(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.time.now += VALIDATION
        self.log("val/accuracy", torch.tensor(0.75))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.time.now += SAVE

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


class Recorder(Logger):
    """Keeps what is logged, by tag."""

    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[tuple[int, float]]] = {}

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append((step, value))

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        """Keep none."""

    def of(self, name: str) -> list[float]:
        return [value for _, value in self.values.get(f"vit_throughput/{name}", [])]


class Run:
    """A run of the task above, in no time."""

    def __init__(self, folder: Path, batches: int = 6, sized: bool = True, callbacks: Any = (), **options: Any) -> None:
        self.time, self.recorder = Seconds(), Recorder()
        self.callback = Throughput(resumed="ckpt_path" in options, now=self.time)
        path = options.pop("ckpt_path", None)
        settings = {"max_epochs": 2, "log_every_n_steps": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0}
        self.trainer = L.Trainer(
            **settings | options,
            **{"accelerator": "cpu", "default_root_dir": folder, "logger": self.recorder},
            **{"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
            callbacks=[self.callback, *callbacks],
        )
        self.task = Task(self.time)
        loaders = [DataLoader(Batches(self.time, batches, sized), batch_size=None) for _ in range(2)]
        self.trainer.fit(self.task, *loaders, ckpt_path=path)

    def epochs(self) -> list[dict[str, float]]:
        """What was logged of each epoch, with the steps until its end."""
        found: dict[int, dict[str, float]] = {}
        for tag, values in self.recorder.values.items():
            for step, value in values if tag.startswith("vit_epoch/") else ():
                found.setdefault(step, {"step": step + 1})[tag.removeprefix("vit_epoch/")] = value
        return [found[step] for step in sorted(found)]


class SaveAt(L.Callback):
    """Saves a checkpoint at the end of some steps."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class FailAt(L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError
