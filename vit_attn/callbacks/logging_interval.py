"""Interval between logged training steps that gives short runs curves, too."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

POINTS = 50
"""Points that the curves of a short run have at least, or one a step."""
LONGEST = 50
"""Longest interval in steps, Lightning's default: the host waits for the device where values are logged."""


class LoggingInterval(L.Callback):
    """Sets ``trainer.log_every_n_steps`` by the length of the run, unless the user has set it.

    Args:
        every_n_steps: The user's setting; None for an interval that fits the run.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the interval, or warn of one that is longer than the run, which would have no curve."""
        steps = trainer.estimated_stepping_batches
        if self.every_n_steps is None:
            settings: Any = trainer
            settings.log_every_n_steps = interval_for(steps)
        elif self.every_n_steps > steps and trainer.loggers:
            rank_zero_warn(
                f"trainer.log_every_n_steps={self.every_n_steps} is more than the {steps:.0f} steps of the run, so it "
                "has no curve of the training loss: leave it out, and it fits the run"
            )


def interval_for(steps: float) -> int:
    """Choose the steps between two logged ones.

    >>> [interval_for(steps) for steps in (8, 30, 375, 2500, 70_000)]
    [1, 1, 7, 50, 50]

    Args:
        steps: Steps of the run; infinity if they are not known.
    """
    return int(max(1, min(LONGEST, steps // POINTS)))
