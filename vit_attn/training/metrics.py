"""Metrics of a training step, computed on the device; the host reads them only when they are logged."""

from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64
from torch import Tensor


@torch.no_grad()
def batch_accuracy(
    logits: Float[Tensor, "B classes"], targets: Int64[Tensor, " B"] | Float[Tensor, "B classes"]
) -> Float[Tensor, ""]:
    """Measure the fraction of images whose largest logit is that of their class.

    Args:
        logits: Output of the network.
        targets: Class indices, or fractions of the classes; of mixed images the class with the larger fraction counts.
    """
    labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
    return (logits.argmax(dim=1) == labels).float().mean()


def is_logging_step(trainer: L.Trainer) -> bool:
    """Return true in a training step whose scalars Lightning logs, every ``log_every_n_steps``."""
    step, every = trainer.fit_loop.epoch_loop._batches_that_stepped + 1, getattr(trainer, "log_every_n_steps", 0)
    return bool(every) and (step % every == 0 or trainer.should_stop)


def is_measured_step(trainer: L.Trainer) -> bool:
    """Return true in a logging step, and in the first and last of an epoch, so that callbacks can monitor metrics."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return is_logging_step(trainer) or progress.is_last_batch or progress.current.ready <= 1


def show_on_progress_bar(trainer: L.Trainer, name: str) -> None:
    """Show a logged metric on the progress bar from now on, if there is one.

    ``log(…, prog_bar=True)`` would read the value in every step, even where it is not new.

    Args:
        trainer: The trainer, in a step in which the host may wait.
        name: Name of the metric.
    """
    bar: Any = trainer.progress_bar_callback
    if bar is not None and getattr(bar, "is_enabled", True) and name in trainer.callback_metrics:
        trainer.progress_bar_metrics[name] = float(trainer.callback_metrics[name])
