"""Base of callbacks that log attention during training without changing it."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, ParamSpec

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.errors import UserError
from vit_attn.reports.epoch_log import format_seconds
from vit_attn.training.throughput import wait_for_device

P = ParamSpec("P")
NETWORKS = ("net", "model")
"""Attributes of a task in which its network is looked for."""

MAX_PENDING = 2
"""Steps that may wait to be written, each with its recorded attention in memory."""


class BackgroundWriter:
    """Thread that writes logged steps, one after another, while training goes on.

    With ``MAX_PENDING`` steps waiting, training waits for the oldest: no step is lost, and memory stays bounded. What a
    step is written from must be in the host's memory, so that none of a device's is held.

    Args:
        name: What is written, for warnings.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.executor: ThreadPoolExecutor | None = None
        self.pending: deque[tuple[int, Future[None]]] = deque()
        self.failures: dict[str, list[int]] = {}
        """Steps that could not be written, by the reason."""

    def submit(self, step: int, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a function in the thread, after those that were submitted before.

        Args:
            step: Training step that it writes.
            function: What writes it.
            args: Its arguments.
            kwargs: Its keyword arguments.
        """
        self.report_failures()
        if len(self.pending) >= MAX_PENDING:
            wait([self.pending[0][1]])
            self.report_failures()
        self.executor = self.executor or ThreadPoolExecutor(1, "attention-writer")
        self.pending.append((step, self.executor.submit(function, *args, **kwargs)))

    def report_failures(self) -> None:
        """Warn of steps that failed since the last call, once for each reason; ``finish`` counts the repetitions."""
        while self.pending and self.pending[0][1].done():
            step, future = self.pending.popleft()
            if error := future.exception():
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                steps = self.failures.setdefault(reason, [])
                steps.append(step)
                if len(steps) == 1:
                    rank_zero_warn(f"{self.name} could not be drawn: {reason} (step {step}; the training goes on)")

    def finish(self) -> bool:
        """Wait for all steps and warn of failures; returns whether anything was submitted."""
        if self.executor is None:
            return False
        self.executor.shutdown(wait=True)
        self.executor = None
        self.report_failures()
        failures, self.failures = self.failures, {}
        for reason, (_, *repeated) in failures.items():
            if repeated:
                times = f"{len(repeated)} more time{'s' * (len(repeated) > 1)}"
                rank_zero_warn(f"{self.name} could not be drawn: {reason} ({times}, last in step {repeated[-1]})")
        return True


class AttentionCallback(L.Callback):
    """Callback that logs attention before validations and at the end, within a fraction of the run's time.

    Args:
        meter: Time that logging may take, and its name.
        every_n_epochs: Epochs from one logging to the next.
    """

    def __init__(self, meter: CostMeter, every_n_epochs: int) -> None:
        self.meter, self.every_n_epochs = meter, every_n_epochs
        self.last_logged_step: int | None = None
        self.background = BackgroundWriter(f"pictures of {meter.name}")

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Log the network's attention at this step; unless ``always``, only if the time that it takes is affordable."""
        raise NotImplementedError

    def logs_epoch(self, epoch: int) -> bool:
        """Test whether attention is logged at the end of an epoch, counted from 1."""
        return epoch % self.every_n_epochs == 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Warn of steps that could not be written meanwhile."""
        self.background.report_failures()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the network that is about to be validated; averaged weights are in place by now."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        epoch, last = trainer.current_epoch + 1, trainer.current_epoch + 1 == trainer.max_epochs
        if last or self.logs_epoch(epoch):
            self.log_attention(trainer, pl_module, always=last)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the end of a run that no validation ended, and wait until all steps are written."""
        if trainer.global_step != self.last_logged_step:
            self.log_attention(trainer, pl_module, always=True)
        self.finish()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Wait until all steps are written."""
        self.finish()

    def should_log(self, trainer: L.Trainer, always: bool) -> bool:
        """Test whether this step is new and affordable, alike on all ranks; it then counts as logged."""
        if trainer.global_step == self.last_logged_step:
            return False
        if not trainer.strategy.broadcast(always or self.meter.affords(progress_of(trainer))):
            return False
        self.last_logged_step = trainer.global_step
        wait_for_device(trainer.strategy.root_device)  # logging would do it, at its own expense
        return True

    def finish(self) -> None:
        """Wait until all steps are written, and report the time that logging took."""
        if self.background.finish():
            seconds = format_seconds(self.meter.spent)
            rank_zero_info(
                f"{self.meter.name}: logging took {seconds}, drawing included, some of it beside the training"
            )


def progress_of(trainer: L.Trainer) -> float:
    """Fraction of the run that is done; 0 where its end is not known."""
    return trainer.global_step / trainer.estimated_stepping_batches


def tensorboard_writers(trainer: L.Trainer) -> list[SummaryWriter]:
    """Writers of the trainer's TensorBoard loggers; none on ranks that do not write."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def run_name(writer: SummaryWriter) -> str:
    """Return the name of a run: the last two folders of its path, such as ``quickstart/20260101-120000-abcd``."""
    return "/".join(Path(writer.log_dir).parts[-2:])


def network_name(task: nn.Module) -> str:
    """Return the name of a task's network in timm's registry, or of its class."""
    return str(getattr(task, "hparams", {}).get("arch") or type(net_of(task)).__name__)


def net_of(pl_module: nn.Module) -> nn.Module:
    """Return the network of a task: its ``net``, else its ``model``, else its only part that has parameters.

    Raises:
        UserError: If there are several parts, or none.
    """
    for name in NETWORKS:
        if isinstance(net := getattr(pl_module, name, None), nn.Module):
            return net
    parts = {name: part for name, part in pl_module.named_children() if any(True for _ in part.parameters())}
    if len(parts) == 1:
        return next(iter(parts.values()))
    has = f"its parts are {', '.join(parts)}" if parts else "it has none"
    raise UserError(
        f"which part of {type(pl_module).__name__} is the vision transformer? {has}: name the network `self.net`"
    )


def forward_of(pl_module: nn.Module) -> nn.Module:
    """Return what computes the logits of images: the task, or its network if the task has no ``forward``."""
    has_none = type(pl_module).forward in (nn.Module.forward, L.LightningModule.forward)
    return net_of(pl_module) if has_none else pl_module


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluate without gradients; afterwards every module is in the mode that it was in."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
