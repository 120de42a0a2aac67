"""Meter of a run: its time by activity, its images and operations, and what follows from them."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.throughput_monitor import _plugin_to_compute_dtype
from torch import Tensor, nn

from vit_attn.callbacks.attention_callback import AttentionCallback
from vit_attn.training.throughput import (
    Activity,
    ActivityClock,
    Usage,
    count_flops,
    peak_flops,
    peak_memory,
    wait_for_device,
)

WINDOWS = 10
"""Windows, each from one logging point to the next, from which the time left is estimated."""


class RunMeter:
    """Times what a trainer does, counts its training images, and estimates the time that is left.

    Args:
        now: Time in seconds, from any start.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.clock, self.done = ActivityClock(now), Usage()
        self.windows = deque([Usage()], WINDOWS + 1)
        """Usage at the end of the last windows."""
        self.flops_per_image: float | None = None
        self.peak: float | None = None
        """Floating-point operations per second that the device can do at most, if that is known."""
        self.total_steps = float("inf")
        self._computes: object = None
        self._parameters: list[nn.Parameter] = []
        self._training_at_start = 0.0
        self._logging: list[Any] = []
        self._timed: list[tuple[Any, str]] = []

    def usage(self) -> Usage:
        """Return what the run did so far, and its time by activity."""
        return replace(self.done, seconds=self.clock.read())

    def restore(self, usage: Usage) -> None:
        """Continue from what was done before."""
        self.done = usage
        self.clock.seconds |= usage.seconds

    @property
    def logging_fraction(self) -> float:
        """Fraction of the time that attention logging and comparisons took, drawing in the background included."""
        return sum(meter.fraction for meter in self._logging)

    def mfu(self, usage: Usage) -> float | None:
        """Return the model FLOP utilisation of a part of the run, or None where it is not known."""
        speed = usage.flops_per_second
        return speed / self.peak if speed and self.peak else None

    def attach(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Time the input, validations, checkpoints and attention logging of a trainer."""
        loop = trainer.fit_loop.epoch_loop
        self._time_calls(trainer, "save_checkpoint", "checkpoint")
        self._time_calls(loop.val_loop, "run", "validation", lambda: wait_for_device(pl_module.device))
        before_fetch = loop._on_before_fetch

        def begin_input() -> None:
            self.begin_input()
            before_fetch()

        loop._on_before_fetch = begin_input
        self._timed.append((loop, "_on_before_fetch"))
        callbacks: Any = getattr(trainer, "callbacks", [])
        self._logging = [each.meter for each in callbacks if isinstance(each, AttentionCallback)]
        for meter in self._logging:
            meter.blocking = lambda: self.clock.measure("logging")

    def detach(self) -> None:
        """Take the timing out of the trainer."""
        while self._timed:
            owner, name = self._timed.pop()
            vars(owner).pop(name, None)

    def start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.total_steps = trainer.estimated_stepping_batches
        self.peak = peak_flops(pl_module.device, _plugin_to_compute_dtype(trainer.precision_plugin))
        self.clock.start()
        self._restart_windows()

    def begin_input(self) -> None:
        """Count the wait for a batch, unless it is the first, which belongs to the start-up."""
        if self.clock.current == "train":
            self.clock.begin("input")

    def begin_batch(self) -> None:
        """Count the step of a batch, which is there now."""
        self.clock.end("input")
        self._training_at_start = self.clock.read()["train"]

    def end_batch(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Sequence[Tensor]) -> None:
        """Count a batch; one that began something new, and was compiled for it, belongs to the start-up."""
        images, targets = batch
        if self._network_changed(trainer, pl_module, images, targets.ndim):
            self.clock.end("startup")
            self.clock.move("train", "startup", self.clock.read()["train"] - self._training_at_start)
            self.done = replace(self.done, batches=self.done.batches + 1)
            self._restart_windows()
            return
        total = len(images) * (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1)
        self.done = replace(
            self.done,
            batches=self.done.batches + 1,
            timed_batches=self.done.timed_batches + 1,
            images=self.done.images + total,
            flops=self.done.flops + (self.flops_per_image or 0.0) * total / trainer.world_size,
        )

    def end_window(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float | None]:
        """End a window and begin the next, at a logging point; return the scalars, None where not known."""
        wait_for_device(pl_module.device)
        usage = self.usage()
        window = usage - self.windows[-1]
        self.windows.append(usage)
        return {
            "images_per_second": window.images_per_second,
            "mfu": self.mfu(window),
            "input_fraction": window.input_fraction,
            "logging_fraction": self.logging_fraction,
            "validation_fraction": usage.fraction("validation"),
            "checkpoint_fraction": usage.fraction("checkpoint"),
            "peak_memory_gb": peak_memory(pl_module.device),
            "seconds_left": self.seconds_left(trainer),
        }

    def seconds_left(self, trainer: L.Trainer) -> float | None:
        """Estimate the seconds until the run has taken all its steps, or until its time is over; None at its end."""
        left: list[float] = []
        usage = self.usage()
        per_batch = usage.seconds_per_batch(usage - self.windows[0])
        if per_batch is not None and self.total_steps != float("inf"):
            left.append((self.total_steps - trainer.global_step) * trainer.accumulate_grad_batches * per_batch)
        callbacks: Any = getattr(trainer, "callbacks", [])
        timers = [each.time_remaining() for each in callbacks if isinstance(each, Timer)]
        left += [seconds for seconds in timers if seconds is not None]
        return min(left) if left and min(left) > 0 else None

    def _time_calls(self, owner: Any, name: str, activity: Activity, before: Callable[[], None] = lambda: None) -> None:
        """Count the calls of a method for an activity, until :meth:`detach`."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before()
            self.clock.end("input")
            with self.clock.measure(activity):
                return method(*args, **kwargs)

        setattr(owner, name, timed)
        self._timed.append((owner, name))

    def _restart_windows(self) -> None:
        self.windows.clear()
        self.windows.append(self.usage())

    def _network_changed(
        self, trainer: L.Trainer, pl_module: L.LightningModule, images: Tensor, target_ndim: int
    ) -> bool:
        """Test whether the network computes something else than in the batch before; if so, count its operations."""
        net = getattr(pl_module, "net", None)
        grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
        mixed = target_ndim  # targets of mixed images are fractions: another loss
        computes = images.shape[1:], grid, mixed, sum(each.requires_grad for each in self._parameters)
        if computes == self._computes:
            return False
        if isinstance(net, nn.Module):
            self._parameters = list(net.parameters())
            with trainer.precision_plugin.forward_context():
                self.flops_per_image = count_flops(net, images.to(self._parameters[0].dtype)).training
        self._computes = images.shape[1:], grid, mixed, sum(each.requires_grad for each in self._parameters)
        return True
