"""Looking at a network beside its training, which must not notice."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from vit_attn.callbacks.cost_meter import CostMeter
from vit_attn.errors import UserError

MOST_WAITING = 2
"""Drawings that may be undone at a time, each with what was recorded of its images in memory."""


class BackgroundWriter:
    """A thread of its own for what can be done while training goes on; one thing after the other.

    Where ``MOST_WAITING`` drawings are still undone, the training waits for the oldest: none is lost, and what is kept
    in memory stays bounded. What a drawing is given must be in the host's memory, so that none of a device's is held.

    Args:
        what: What is drawn, for warnings.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.thread: ThreadPoolExecutor | None = None
        self.drawings: deque[tuple[int, Future[None]]] = deque()
        self.failures: dict[str, list[int]] = {}
        """Steps whose drawing failed, by the reason."""

    def draw(self, step: int, function: Callable[..., None], *args: Any) -> None:
        """Call the function there, when what came before is done.

        Args:
            step: Training step that is drawn.
            function: What draws it.
            args: Its arguments.
        """
        self.warn()
        if len(self.drawings) >= MOST_WAITING:
            wait([self.drawings[0][1]])
            self.warn()
        self.thread = self.thread or ThreadPoolExecutor(1, "attention-pictures")
        self.drawings.append((step, self.thread.submit(function, *args)))

    def warn(self) -> None:
        """Warn of drawings that have failed since; of more that failed for the same reason ``finish`` tells."""
        while self.drawings and self.drawings[0][1].done():
            step, drawing = self.drawings.popleft()
            if error := drawing.exception():
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                steps = self.failures.setdefault(reason, [])
                steps.append(step)
                if len(steps) == 1:
                    rank_zero_warn(f"{self.what} could not be drawn: {reason} (step {step}; the training goes on)")

    def finish(self) -> bool:
        """Wait for all, and tell what failed; whether there was anything."""
        if self.thread is None:
            return False
        self.thread.shutdown(wait=True)
        self.thread = None
        self.warn()
        failures, self.failures = self.failures, {}
        for reason, (_, *more) in failures.items():
            if more:
                times = f"{len(more)} more time{'s' * (len(more) > 1)}"
                rank_zero_warn(f"{self.what} could not be drawn: {reason} ({times}, last in step {more[-1]})")
        return True


class AttentionCallback(L.Callback):
    """A callback that looks at the network before validations, at the end, and within a share of the run's time.

    Args:
        meter: What it may cost, and what it is called.
        every_n_epochs: Epochs from one look to the next.
    """

    def __init__(self, meter: CostMeter, every_n_epochs: int) -> None:
        self.meter, self.every_n_epochs = meter, every_n_epochs
        self.logged: int | None = None
        self.drawer = BackgroundWriter(f"pictures of {meter.what}")

    def log_attention(self, trainer: L.Trainer, pl_module: L.LightningModule, always: bool = False) -> None:
        """Look at the network; unless ``always``, if that is not too much."""
        raise NotImplementedError

    def at_epoch(self, epoch: int) -> bool:
        """Whether it looks at the end of that epoch, counted from 1."""
        return epoch % self.every_n_epochs == 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Warn of a drawing that has failed meanwhile."""
        self.drawer.warn()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the network that is about to be validated; averaged weights are in place by now."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        epoch, last = trainer.current_epoch + 1, trainer.current_epoch + 1 == trainer.max_epochs
        if last or self.at_epoch(epoch):
            self.log_attention(trainer, pl_module, always=last)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the end of a run that no validation ended, and wait for the last pictures."""
        if trainer.global_step != self.logged:
            self.log_attention(trainer, pl_module, always=True)
        self._finish()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Wait for the last pictures."""
        self._finish()

    def due(self, trainer: L.Trainer, always: bool) -> bool:
        """Whether this step was not looked at yet and can be afforded; all ranks say the same."""
        if trainer.global_step == self.logged:
            return False
        if not trainer.strategy.broadcast(always or self.meter.affords(progress_of(trainer))):
            return False
        self.logged = trainer.global_step
        return True

    def _finish(self) -> None:
        if self.drawer.finish():
            rank_zero_info(f"{self.meter.what}: logging took {self.meter.share:.1%} of the time, drawing included")


def progress_of(trainer: L.Trainer) -> float:
    """Share of the run that is done; 0 where its end is not known."""
    return trainer.global_step / trainer.estimated_stepping_batches


def net_of(pl_module: L.LightningModule) -> nn.Module:
    """The network of a task.

    Raises:
        UserError: If it has none as ``net``.
    """
    net = getattr(pl_module, "net", None)
    if not isinstance(net, nn.Module):
        raise UserError("attention needs a task with its network as `net`, as Classifier has")
    return net


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; afterwards every module is in the mode that it was in."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
