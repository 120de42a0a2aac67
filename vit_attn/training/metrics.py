"""Metrics of a training step, computed on the device; the host reads them only when they are logged."""

import lightning as L
import torch
from jaxtyping import Float, Int64
from torch import Tensor

SPEED, LEFT = "images/s", "minutes left"
"""Names of the numbers beside the progress bar that the throughput meter gives."""


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
    return trainer._logger_connector.should_update_logs


def is_measured_step(trainer: L.Trainer) -> bool:
    """Return true in a logging step, and in the first and last of an epoch, so that callbacks can monitor metrics."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return is_logging_step(trainer) or progress.is_last_batch or progress.current.ready <= 1


def show_on_progress_bar(trainer: L.Trainer, name: str, value: float) -> None:
    """Show a number beside the progress bar from now on.

    ``log(…, prog_bar=True)`` would read it from the device in every step, even where it is not new.

    Args:
        trainer: The trainer.
        name: Name of the number.
        value: The number, on the host.
    """
    trainer.progress_bar_metrics[name] = value
