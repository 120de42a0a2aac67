"""Looking at a network beside its training, which must not notice."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from vit_attn.errors import UserError


class Drawer:
    """A thread of its own for what can be done while training goes on; one thing after the other."""

    def __init__(self) -> None:
        self.thread: ThreadPoolExecutor | None = None
        self.drawings: list[Future[None]] = []

    def draw(self, function: Callable[..., None], *args: Any) -> None:
        """Call the function there, when what came before is done."""
        self.thread = self.thread or ThreadPoolExecutor(1, "attention-pictures")
        self.drawings.append(self.thread.submit(function, *args))

    def finish(self, what: str) -> bool:
        """Wait for all, and tell what failed; whether there was anything."""
        if self.thread is None:
            return False
        self.thread.shutdown(wait=True)
        for drawing in self.drawings:
            if error := drawing.exception():
                rank_zero_warn(f"{what} could not be drawn: {error}")
        self.thread, self.drawings = None, []
        return True


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
