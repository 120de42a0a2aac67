"""Callback that measures where a training step of ``vit-attn fit`` goes, and ends the run.

    vit-attn fit -c configs/cifar10.yaml --trainer.limit_val_batches=0 \
        --trainer.callbacks+='{"class_path": "step_profile.StepProfile", "init_args": {"path": "profile.json"}}'

The folder of this file must be in PYTHONPATH. Four measurements follow one another after some steps of warm-up: steps
as they are, by windows; each part of a step with the device awaited after it, which gives its time on the host and in
all; places at which the host waits for the device; and kernels by torch.profiler.
"""

import contextlib
import json
import statistics
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

WINDOWS = 5
PROFILED = 3
"""Steps that torch.profiler records."""
WAITED = "called a synchronizing"
"""Words of torch's warning of a wait; another warning tells that this mode is a prototype."""


class StepProfile(L.Callback):
    """Measures steps after a warm-up, writes a JSON file, and stops the run.

    Args:
        path: File for the results.
        warmup: Steps before the first measurement.
        steps: Steps of a window, of the measurement of parts, and of the count of waits.
    """

    def __init__(self, path: str, warmup: int = 20, steps: int = 20) -> None:
        self.path, self.warmup, self.steps = Path(path), warmup, steps
        self.step, self.on_gpu = -warmup, False
        self.results: dict[str, Any] = {}
        self.windows: list[float] = []
        self.host: dict[str, list[float]] = {}
        self.total: dict[str, list[float]] = {}
        self._last = 0.0
        self._stack = contextlib.ExitStack()

    @property
    def phase(self) -> str:
        """Measurement of the current step."""
        ends = {"warmup": 0, "windows": WINDOWS * self.steps, "parts": (WINDOWS + 1) * self.steps}
        ends |= {"waits": (WINDOWS + 2) * self.steps, "kernels": (WINDOWS + 2) * self.steps + PROFILED}
        return next((name for name, end in ends.items() if self.step < end), "done")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the device."""
        self.on_gpu = pl_module.device.type == "cuda"

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the input of the step."""
        self._mark("input")

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """End the forward pass."""
        self._mark("forward")

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Any) -> None:
        """End the reset of the gradients."""
        self._mark("zero_grad")

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the backward pass."""
        self._mark("backward")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step, and change to the next measurement where it is due."""
        self._mark("clip, optimiser, average")
        if self.phase == "windows" and (self.step + 1) % self.steps == 0:
            self._end_window()
        before = self.phase
        self.step += 1
        if self.phase != before:
            self._end(before)
            self._begin(self.phase)
        self._last = time.perf_counter()
        if self.phase == "done":
            self.path.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave no measurement on after an error."""
        self._stack.close()

    def _mark(self, part: str) -> None:
        """Measure the time since the last mark, on the host and with the device awaited."""
        if self.phase != "parts":
            return
        on_host = time.perf_counter() - self._last
        self._wait()
        self.host.setdefault(part, []).append(on_host)
        self.total.setdefault(part, []).append(time.perf_counter() - self._last)
        self._last = time.perf_counter()

    def _end_window(self) -> None:
        self._wait()
        now = time.perf_counter()
        self.windows.append((now - self._window_start) / self.steps)
        self._window_start = now

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def _begin(self, phase: str) -> None:
        self._wait()
        self._window_start = time.perf_counter()
        if phase == "waits":
            self.caught = self._stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            if self.on_gpu:
                torch.cuda.set_sync_debug_mode("warn")
                self._stack.callback(torch.cuda.set_sync_debug_mode, "default")
        if phase == "kernels":
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
            self.profiler = self._stack.enter_context(profile(activities=activities))

    def _end(self, phase: str) -> None:
        self._wait()
        self._stack.close()
        if phase == "windows":
            self.results["step_ms"] = statistics.median(self.windows) * 1e3
        elif phase == "parts":
            self.results["parts_ms"] = {
                name: {"host": statistics.median(self.host[name]) * 1e3, "total": statistics.median(values) * 1e3}
                for name, values in self.total.items()
            }
        elif phase == "waits":
            self._count_waits()
        elif phase == "kernels":
            self._count_kernels()

    def _count_waits(self) -> None:
        """Count warnings of torch's sync debug mode by the line of code that waited; a CPU has none to wait for."""
        if not self.on_gpu:
            return
        places = Counter(
            f"{Path(each.filename).name}:{each.lineno}" for each in self.caught if WAITED in str(each.message)
        )
        self.results["waits_per_step"] = sum(places.values()) / self.steps
        self.results["waits"] = {place: count / self.steps for place, count in places.most_common(10)}

    def _count_kernels(self) -> None:
        events = [each for each in self.profiler.events() or [] if each.device_type.name == "CUDA"]
        self.results["kernels_per_step"] = len(events) / PROFILED if self.on_gpu else None
        self.results["device_busy_ms"] = sum(each.device_time for each in events) / 1e3 / PROFILED if events else None
        key = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
        averages = sorted(self.profiler.key_averages(), key=lambda each: -getattr(each, key))[:15]
        self.results["longest_ms"] = {each.key[:80]: getattr(each, key) / 1e3 / PROFILED for each in averages}
