"""Callback that measures the speed of a run and reports each epoch in one line."""

import time
from collections.abc import Callable
from typing import Any

import lightning as L

from vit_attn.callbacks.run_meter import RunMeter
from vit_attn.callbacks.tags import EPOCH, FINAL, THROUGHPUT
from vit_attn.callbacks.trainer_state import (
    ends_within_epoch,
    is_accumulating,
    is_fitting,
    is_logging_point,
    logging_step,
    step_limit,
)
from vit_attn.console import CONSOLE, is_interactive
from vit_attn.reports.epoch_log import EpochRow, format_line
from vit_attn.training import metrics
from vit_attn.training.throughput import Usage, peak_memory, wait_for_device

LINE_SECONDS = 300.0
"""Seconds between two lines within an epoch, where there is no progress bar."""
TRAIN_METRICS = ("train/loss", "train/accuracy")
VAL_METRICS = ("val/loss", "val/accuracy")
SPEED, MINUTES = f"{FINAL}/images_per_second", f"{FINAL}/minutes"
"""Scalars of the whole run, at its end."""


class Throughput(L.Callback):
    """Measures the speed of a run, as scalars, and in one line per epoch on the terminal.

    Every ``log_every_n_steps`` steps, under ``vit_throughput/``, for the window since the last time:
    ``images_per_second`` of all devices (training steps with their input, without validation, logging and checkpoints),
    ``mfu`` (model FLOP utilisation; for GPUs whose peak is known), ``input_fraction`` (fraction of the training time in
    which the loop waited for a batch or launched its preparation); for the run so far: ``logging_fraction`` (attention
    and comparisons, drawing in the background included), ``validation_fraction``, ``checkpoint_fraction`` and
    ``peak_memory_gb``; and ``seconds_left``, where the length of the run is known.

    On a GPU the host launches work ahead of the device, so the time of a single step says nothing. Windows begin and
    end where the values of the step are logged, validations begin where their metrics are needed: there the host waits
    for the device anyway, and the time between is that of the device. Nothing waits in between; an epoch without a
    logging point has one at its end. The first step is not timed, nor is one after which the network computes something
    else (other tokens, other trained parts), since that is where it is compiled. Several devices are taken to be as
    fast as the first one, so nothing is exchanged.

    At the end of an epoch, of all of it: ``vit_epoch/train_loss`` and ``vit_epoch/train_accuracy`` (means over the
    logged steps), ``vit_epoch/images_per_second``, ``vit_epoch/mfu``, ``vit_epoch/seconds`` and
    ``vit_epoch/input_fraction``.

    It must come before callbacks that log or save, so that an epoch's scalars are written before its checkpoint.

    Args:
        resumed: Whether the run is resumed, so that its counts are continued.
        now: Time in seconds, from any start.
    """

    def __init__(self, resumed: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self.resumed, self.meter = resumed, RunMeter(now)
        self.memory: float | None = None
        """Peak memory in GB at the end of the run."""
        self.epoch_start = Usage()
        self.sums: dict[str, list[float]] = {}
        """Sum and number of the logged values of the epoch so far, by metric."""
        self.validated: dict[str, float] = {}
        self.now, self.last_line = now, 0.0
        """Clock, and its time when a line was last said."""

    def state_dict(self) -> dict[str, Any]:
        """Return counts and times of the run and of its current epoch."""
        return {
            "run": self.meter.usage().state(),
            "epoch_start": self.epoch_start.state(),
            "sums": {name: list(each) for name, each in self.sums.items()},
            "validated": dict(self.validated),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the counts of a resumed run; a new run that starts from its state has its own."""
        if self.resumed:
            self.meter.restore(Usage(**state_dict["run"]))
            self.epoch_start = Usage(**state_dict["epoch_start"])
            self.sums, self.validated = state_dict["sums"], state_dict["validated"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Time what the trainer does."""
        if stage == "fit":
            self.meter.attach(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the timing out of the trainer."""
        self.meter.detach()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.meter.start(trainer, pl_module)
        self.last_line = self.now()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what makes the first batch of an epoch, such as the start of workers, as input."""
        self.meter.begin_input()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the input."""
        self.meter.begin_batch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and log at logging points."""
        self.meter.end_batch(trainer, pl_module, batch)
        if not is_logging_point(trainer):
            return
        values = self.meter.end_window(trainer, pl_module)
        scalars = {f"{THROUGHPUT}/{name}": value for name, value in values.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, logging_step(trainer))
        if (speed := values["images_per_second"]) is not None:
            metrics.show_on_progress_bar(trainer, metrics.SPEED, speed)
        if (left := values["seconds_left"]) is not None:
            metrics.show_on_progress_bar(trainer, metrics.LEFT, left / 60)
        self._add_train_metrics(trainer)
        if not is_interactive() and self.now() - self.last_line >= LINE_SECONDS:
            self._say(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics, and end the epoch where it ends with this validation."""
        if not is_fitting(trainer):
            return
        self.validated = _read(trainer, VAL_METRICS)
        if not is_accumulating(trainer) and (trainer.is_last_batch or ends_within_epoch(trainer)):
            self._end_epoch(trainer, pl_module)
        else:
            self._say(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End an epoch that no validation ended."""
        self.meter.clock.end("input")  # of a stream that had no more
        self._end_epoch(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what follows, the last attention logging and the wait for its pictures, as logging."""
        wait_for_device(pl_module.device)
        self.meter.clock.begin("logging")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock, and log the speed and the time of the run."""
        self.meter.clock.stop()
        usage, self.memory = self.meter.usage(), peak_memory(pl_module.device)
        values = {SPEED: usage.images_per_second, MINUTES: usage.total_seconds / 60}
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in values.items() if value}, trainer.global_step)

    def _add_train_metrics(self, trainer: L.Trainer) -> None:
        for name, value in _read(trainer, TRAIN_METRICS).items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]

    def _end_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print and log the epoch, unless that is done, and begin the next."""
        if self.meter.done.batches == self.epoch_start.batches:
            return
        if not self.sums:  # no logging point was in the epoch
            wait_for_device(pl_module.device)
            self._add_train_metrics(trainer)
        usage = self.meter.usage()
        row = self._row(trainer, usage - self.epoch_start)
        self.epoch_start, self.sums, self.validated = usage, {}, {}
        if not trainer.is_global_zero:
            return
        self._say(trainer, row)
        scalars = {f"{EPOCH}/{name}": value for name, value in row.scalars().items()} | {"epoch": row.epoch - 1}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, trainer.global_step - 1)  # the step of the validation's metrics

    def _say(self, trainer: L.Trainer, row: EpochRow | None = None) -> None:
        """Say an epoch, or what is known of one that has not ended, in a line."""
        self.last_line = self.now()
        if trainer.is_global_zero:
            values = row or self._row(trainer, self.meter.usage() - self.epoch_start)
            CONSOLE.say(format_line(_position(trainer, row is not None), values))

    def _row(self, trainer: L.Trainer, epoch: Usage) -> EpochRow:
        means = {name: total / count for name, (total, count) in self.sums.items()}
        return EpochRow(
            trainer.current_epoch + 1,
            trainer.global_step,
            *(means.get(name) for name in TRAIN_METRICS),
            *(self.validated.get(name) for name in VAL_METRICS),
            images_per_second=epoch.images_per_second,
            mfu=self.meter.mfu(epoch),
            seconds=epoch.total_seconds,
            input_fraction=epoch.input_fraction,
            seconds_left=self.meter.seconds_left(trainer),
        )


def _position(trainer: L.Trainer, is_epoch_over: bool) -> str:
    """Return the place in the run: a step, an epoch from 1, or in an unfinished one the epochs so far as a decimal."""
    if (steps := step_limit(trainer)) is not None:
        return f"step {trainer.global_step:,}/{steps:,}"
    epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
    if is_epoch_over:
        return f"epoch {trainer.current_epoch + 1}{epochs}"
    done, batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.num_training_batches
    if batches == float("inf"):
        return f"epoch {trainer.current_epoch + 1}{epochs}, step {trainer.global_step:,}"
    return f"epoch {trainer.current_epoch + done / batches:.1f}{epochs}"


def _read(trainer: L.Trainer, names: tuple[str, ...]) -> dict[str, float]:
    """Read metrics, as far as they exist."""
    metrics = trainer.callback_metrics
    return {name: float(metrics[name]) for name in names if name in metrics}
