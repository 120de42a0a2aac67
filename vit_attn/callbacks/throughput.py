"""Callback that measures the speed of a run and reports each epoch in one line."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.throughput_monitor import _plugin_to_compute_dtype
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from vit_attn.callbacks.attention_callback import AttentionCallback
from vit_attn.callbacks.trainer_state import (
    ends_within_epoch,
    is_accumulating,
    is_fitting,
    is_logging_point,
    is_trial,
    logging_step,
    print_line,
    show_in_progress_bar,
)
from vit_attn.reports.epoch_log import FILE_NAME, EpochLog, EpochRow, format_line
from vit_attn.training.throughput import (
    Activity,
    ActivityClock,
    Usage,
    count_training_flops,
    peak_flops,
    peak_memory,
    wait_for_device,
)

WINDOWS = 10
"""Windows, each from one logging point to the next, from which the time left is estimated."""
TRAIN_METRICS = ("train/loss", "train/accuracy")
VAL_METRICS = ("val/loss", "val/accuracy")
SPEED, MINUTES = "final/images_per_second", "final/minutes"
"""Scalars of the whole run, at its end."""


class Throughput(L.Callback):
    """Measures the speed of a run, as scalars, in one line per epoch on the terminal, and in ``epochs.csv``.

    Every ``log_every_n_steps`` steps, for the window since the last time: ``throughput/images_per_second`` of all
    devices (training steps with their input, without validation, logging and checkpoints), ``throughput/mfu`` (model
    FLOP utilisation; for GPUs whose peak is known), ``throughput/input_fraction`` (fraction of the training time in
    which the loop waited for a batch or launched its preparation); for the run so far:
    ``throughput/logging_fraction`` (attention and comparisons, drawing in the background included),
    ``throughput/validation_fraction``, ``throughput/checkpoint_fraction`` and ``throughput/peak_memory_gb``; and
    ``throughput/seconds_left``, where the length of the run is known.

    On a GPU the host launches work ahead of the device, so the time of a single step says nothing. Windows begin and
    end where the values of the step are logged, validations begin where their metrics are needed: there the host waits
    for the device anyway, and the time between is that of the device. Nothing waits in between; an epoch without a
    logging point has one at its end. The first step is not timed, nor is one after which the network computes something
    else (other tokens, other trained parts), since that is where it is compiled. Several devices are taken to be as
    fast as the first one, so nothing is exchanged.

    It must come before callbacks that log or save, so that an epoch's row is written before its checkpoint.

    Args:
        folder: Folder of ``epochs.csv``; None writes none.
        resumed: Whether the run is resumed, so that its file and figures are continued.
        now: Time in seconds, from any start.
    """

    def __init__(
        self, folder: Path | None = None, resumed: bool = False, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.epoch_log = None if folder is None else EpochLog(folder / FILE_NAME)
        self.resumed, self.clock = resumed, ActivityClock(now)
        self.batches, self.timed_batches, self.images, self.flops = 0, 0, 0, 0.0
        self.flops_per_image: float | None = None
        self.peak: float | None = None
        """Floating-point operations per second that the device can do at most, if that is known."""
        self.memory: float | None = None
        self.total_steps = float("inf")
        self.epoch_start, self.windows = Usage(), deque([Usage()], WINDOWS + 1)
        self.sums: dict[str, list[float]] = {}
        """Sum and number of the logged values of the epoch so far, by metric."""
        self.validated: dict[str, float] = {}
        self._computes: object = None
        self._training_at_start = 0.0
        self._meters: list[Any] = []
        self._timed: list[tuple[Any, str]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return counts and times of the run and of its current epoch."""
        return {
            "run": self.usage().state(),
            "epoch_start": self.epoch_start.state(),
            "sums": {name: list(each) for name, each in self.sums.items()},
            "validated": dict(self.validated),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the counts of a resumed run; a new run that starts from its state has its own."""
        if not self.resumed:
            return
        run = Usage(**state_dict["run"])
        self.batches, self.timed_batches, self.images, self.flops = (
            run.batches,
            run.timed_batches,
            run.images,
            run.flops,
        )
        self.clock.seconds |= run.seconds
        self.epoch_start = Usage(**state_dict["epoch_start"])
        self.sums, self.validated = state_dict["sums"], state_dict["validated"]

    def usage(self) -> Usage:
        """Return what the run did so far, and its time by activity."""
        return Usage(self.batches, self.timed_batches, self.images, self.flops, self.clock.read())

    @property
    def mfu_of_run(self) -> float | None:
        """Model FLOP utilisation of the run, or None where it is not known."""
        return self._mfu(self.usage())

    @property
    def logging_fraction(self) -> float:
        """Fraction of the time that attention logging and comparisons took, drawing in the background included."""
        return sum(meter.fraction for meter in self._meters)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Time the input, validations, checkpoints and attention logging of the trainer."""
        if stage != "fit":
            return
        loop = trainer.fit_loop.epoch_loop
        self._time_calls(trainer, "save_checkpoint", "checkpoint")
        self._time_calls(loop.val_loop, "run", "validation", lambda: wait_for_device(pl_module.device))
        before_fetch = loop._on_before_fetch

        def begin_input() -> None:
            self._begin_input()
            before_fetch()

        loop._on_before_fetch = begin_input
        self._timed.append((loop, "_on_before_fetch"))
        callbacks: Any = getattr(trainer, "callbacks", [])
        self._meters = [each.meter for each in callbacks if isinstance(each, AttentionCallback)]
        for meter in self._meters:
            meter.blocking = lambda: self.clock.measure("logging")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the timing out of the trainer."""
        while self._timed:
            owner, name = self._timed.pop()
            vars(owner).pop(name, None)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and drop rows of ``epochs.csv`` that the run will write again."""
        self.total_steps = trainer.estimated_stepping_batches
        self.peak = peak_flops(pl_module.device, _plugin_to_compute_dtype(trainer.precision_plugin))
        if self._writes(trainer) and self.epoch_log is not None:
            self.epoch_log.drop_after(trainer.global_step if self.resumed else -1)
        self.clock.start()
        self._restart_windows()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what makes the first batch of an epoch, such as the start of workers, as input."""
        self._begin_input()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the input."""
        self.clock.end("input")
        self._training_at_start = self.clock.read()["train"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and log at logging points."""
        images: Tensor = batch[0]
        self.batches += 1
        if self._network_changed(trainer, pl_module, images):
            self.clock.end("startup")
            self.clock.move("train", "startup", self.clock.read()["train"] - self._training_at_start)
            self._restart_windows()
        else:
            ranks = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1)
            self.timed_batches, self.images = self.timed_batches + 1, self.images + len(images) * ranks
            self.flops += (self.flops_per_image or 0.0) * len(images) * ranks / trainer.world_size
        if is_logging_point(trainer):
            self._log(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics, and end the epoch where it ends with this validation."""
        if not is_fitting(trainer):
            return
        self.validated = _read(trainer, VAL_METRICS)
        if not is_accumulating(trainer) and (trainer.is_last_batch or ends_within_epoch(trainer)):
            self._end_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End an epoch that no validation ended."""
        self.clock.end("input")  # of a stream that had no more
        self._end_epoch(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what follows, the last attention logging and the wait for its pictures, as logging."""
        wait_for_device(pl_module.device)
        self.clock.begin("logging")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock, and log the speed and the time of the run."""
        self.clock.stop()
        usage, self.memory = self.usage(), peak_memory(pl_module.device)
        values = {SPEED: usage.images_per_second, MINUTES: usage.total_seconds / 60}
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in values.items() if value}, trainer.global_step)

    def _time_calls(self, owner: Any, name: str, activity: Activity, before: Callable[[], None] = lambda: None) -> None:
        """Count the calls of a method for an activity, until the teardown."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before()
            self.clock.end("input")
            with self.clock.measure(activity):
                return method(*args, **kwargs)

        setattr(owner, name, timed)
        self._timed.append((owner, name))

    def _begin_input(self) -> None:
        if self.clock.current == "train":
            self.clock.begin("input")

    def _restart_windows(self) -> None:
        self.windows.clear()
        self.windows.append(self.usage())

    def _network_changed(self, trainer: L.Trainer, pl_module: L.LightningModule, images: Tensor) -> bool:
        """Test whether the network computes something else than in the step before; if so, count its operations."""
        net = getattr(pl_module, "net", None)
        if not isinstance(net, nn.Module):
            computes: object = images.shape[1:]
        else:
            trains = sum(parameter.requires_grad for parameter in net.parameters())
            computes = images.shape[1:], getattr(getattr(net, "patch_embed", None), "grid_size", None), trains
        if computes == self._computes:
            return False
        self._computes = computes
        if isinstance(net, nn.Module):
            with trainer.precision_plugin.forward_context():
                like = next(net.parameters())
                self.flops_per_image = count_training_flops(net, images.to(like.dtype))
        return True

    def _mfu(self, usage: Usage) -> float | None:
        speed = usage.flops_per_second
        return speed / self.peak if speed and self.peak else None

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the window that ends here, and begin the next."""
        wait_for_device(pl_module.device)
        usage = self.usage()
        window = usage - self.windows[-1]
        self.windows.append(usage)
        self._add_train_metrics(trainer)
        values = {
            "images_per_second": window.images_per_second,
            "mfu": self._mfu(window),
            "input_fraction": window.input_fraction,
            "logging_fraction": self.logging_fraction,
            "validation_fraction": usage.fraction("validation"),
            "checkpoint_fraction": usage.fraction("checkpoint"),
            "peak_memory_gb": peak_memory(pl_module.device),
            "seconds_left": self._seconds_left(trainer, usage),
        }
        scalars = {f"throughput/{name}": value for name, value in values.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, logging_step(trainer))
        if window.images_per_second is not None:
            show_in_progress_bar(trainer, "images/s", window.images_per_second)

    def _add_train_metrics(self, trainer: L.Trainer) -> None:
        for name, value in _read(trainer, TRAIN_METRICS).items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]

    def _seconds_left(self, trainer: L.Trainer, usage: Usage) -> float | None:
        """Estimate the seconds until the run has taken all its steps, or until its time is over; None at its end."""
        left: list[float] = []
        per_batch = usage.seconds_per_batch(usage - self.windows[0])
        if per_batch is not None and self.total_steps != float("inf"):
            left.append((self.total_steps - trainer.global_step) * trainer.accumulate_grad_batches * per_batch)
        callbacks: Any = getattr(trainer, "callbacks", [])
        timers = [each.time_remaining() for each in callbacks if isinstance(each, Timer)]
        left += [seconds for seconds in timers if seconds is not None]
        return min(left) if left and min(left) > 0 else None

    def _end_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print and write the epoch, unless that is done, and begin the next."""
        usage = self.usage()
        epoch = usage - self.epoch_start
        if not epoch.batches:
            return
        if not self.sums:
            wait_for_device(pl_module.device)
            self._add_train_metrics(trainer)
            usage = self.usage()
            epoch = usage - self.epoch_start
        means = {name: total / count for name, (total, count) in self.sums.items()}
        row = EpochRow(
            trainer.current_epoch + 1,
            trainer.global_step,
            *(means.get(name) for name in TRAIN_METRICS),
            *(self.validated.get(name) for name in VAL_METRICS),
            images_per_second=epoch.images_per_second,
            mfu=self._mfu(epoch),
            seconds=epoch.total_seconds,
            input_fraction=epoch.input_fraction,
            seconds_left=self._seconds_left(trainer, usage),
        )
        self.epoch_start, self.sums, self.validated = usage, {}, {}
        if not trainer.is_global_zero:
            return
        epochs = trainer.max_epochs if trainer.max_steps == -1 and (trainer.max_epochs or -1) > 0 else None
        print_line(trainer, format_line(row, epochs))
        if self._writes(trainer) and self.epoch_log is not None:
            try:
                self.epoch_log.append(row)
            except OSError as error:
                rank_zero_warn(f"{self.epoch_log.path} could not be written: {error.strerror}; the training goes on")

    def _writes(self, trainer: L.Trainer) -> bool:
        return trainer.is_global_zero and not is_trial(trainer)


def _read(trainer: L.Trainer, names: tuple[str, ...]) -> dict[str, float]:
    """Read metrics, as far as they exist."""
    metrics = trainer.callback_metrics
    return {name: float(metrics[name]) for name in names if name in metrics}
