"""Report of a trial's validation accuracies to the sweep that it is part of."""

from collections.abc import Callable

import lightning as L

from vit_attn.callbacks.run_checkpoint import ACCURACY
from vit_attn.errors import UserError


class TrialReport(L.Callback):
    """Reports each validation accuracy, and ends the run after a validation at which it is pruned.

    The run then ends as after early stopping: with its checkpoints, its last results and its report.

    Args:
        report: Function of the step and its accuracy; returns whether the trial is pruned.
    """

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report = report

    def check(self, trainer: L.Trainer) -> None:
        """Refuse several devices: the other processes would each begin the whole sweep.

        Raises:
            UserError: If there are several.
        """
        if trainer.world_size > 1:
            raise UserError(
                "a trial of a sweep trains on one device: start the same command once per device, each with its own "
                "--trainer.devices=[0], [1] and so on; they share the trials"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report an accuracy."""
        accuracy = trainer.callback_metrics.get(ACCURACY)
        if trainer.state.fn != "fit" or trainer.sanity_checking or accuracy is None:
            return
        if self.report(trainer.global_step, float(accuracy)):
            trainer.should_stop = True
