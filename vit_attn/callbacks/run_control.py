"""Control of a run between its steps: stops on a signal, writes its state, ends at updates that are not finite."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging

from vit_attn.callbacks.nonfinite import NonFiniteMonitor
from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.callbacks.trainer_state import (
    active_weight_averages,
    ends_within_epoch,
    is_accumulating,
    is_fitting,
    is_limited_by_steps,
    is_validation_next,
)
from vit_attn.errors import TrainingFailed
from vit_attn.training import stopping
from vit_attn.training.consensus import Consensus


class RunControl(Checkpoint):
    """Stops or ends a run with its state saved, at the same step on all ranks.

    After each step and each validation batch, ranks exchange three numbers: the signal that one of them received,
    whether the last state is due to be written, and the first step whose update was not finite. Nothing is read from
    the device in a step.

    Args:
        checkpoint: Callback that writes the last state.
        request: Signals that this process received; by default those of the running command.
        on_stop: Called with the signal on the first rank, before any rank ends.
    """

    def __init__(
        self,
        checkpoint: RunCheckpoint,
        request: stopping.StopRequest | None = None,
        on_stop: Callable[[int], None] = lambda signum: None,
    ) -> None:
        self.checkpoint, self.request, self.on_stop = checkpoint, request or stopping.current(), on_stop
        self.consensus, self.nonfinite = Consensus(3), NonFiniteMonitor()
        self.stop_signal = 0
        """Signal that all ranks agreed on, or 0."""
        self.saved_stop_signal = 0
        """The same once the state is written, so that the run can end."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer signals at the end of a step from here on."""
        self.consensus = Consensus(3, trainer.world_size)
        if trainer.world_size > 1:
            self.request.deadline = stopping.DEADLINE
        self.checkpoint.before_write = lambda: self._refuse_bad_steps(trainer, pl_module)
        self.request.under_way = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record where in the run the step is."""
        self.nonfinite.record_location(trainer, batch_idx)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the state if it is due, at the end of an optimiser step that no validation or epoch end follows."""
        due = self._exchange(trainer, self.nonfinite.find_bad_step(trainer, pl_module))
        if is_accumulating(trainer) or is_validation_next(trainer):
            return
        if trainer.is_last_batch and not (is_limited_by_steps(trainer) and ends_within_epoch(trainer)):
            return
        if self.stop_signal or due or ends_within_epoch(trainer):
            self.checkpoint.write_last(trainer)
        self.saved_stop_signal = self.stop_signal

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the validation, which the resumed run starts with."""
        if is_fitting(trainer):
            self._refuse_bad_steps(trainer, pl_module)
            self._stop_validation(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within the validation, which the resumed run repeats from its first batch."""
        if is_fitting(trainer):
            self._stop_validation(trainer, pl_module, averages=active_weight_averages(trainer))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the state if no validation did, and allow a stop before the next epoch."""
        saved = self.checkpoint.saved_at_step == trainer.global_step
        due = self._exchange(trainer, 0) and not saved
        if is_limited_by_steps(trainer):  # Lightning would take a state saved here for an unfinished epoch
            self.saved_stop_signal = self.stop_signal if saved else 0
            return
        if self.stop_signal or due:
            self.checkpoint.write_last(trainer)
        self.saved_stop_signal = self.stop_signal

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Agree with all ranks on a last signal; from here on a signal ends the process at once."""
        self._refuse_bad_steps(trainer, pl_module)
        stop, _, _ = self.consensus.settle((self.request.signum, 0, 0))
        self.stop_signal = stop or self.stop_signal
        self.request.under_way = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let all ranks end together, after the first has finished its background work."""
        if isinstance(exception, stopping.Stopped) and trainer.is_global_zero:
            self.on_stop(exception.signum)
        if isinstance(exception, (stopping.Stopped, TrainingFailed)) and trainer.world_size > 1:
            _dismiss_observer()
            self.consensus.settle((0, 0, 0))

    def raise_if_stopped(self) -> None:
        """End the training, if all ranks agreed to stop and the state is written.

        Raises:
            Stopped: If so.
        """
        if self.saved_stop_signal:
            raise stopping.Stopped(self.saved_stop_signal)

    def _exchange(self, trainer: L.Trainer, bad_step: int) -> bool:
        """Exchange signal, due write and bad step with all ranks; return true if the state is due to be written.

        Raises:
            TrainingFailed: If an update was not finite and the run is to end there.
        """
        due = trainer.is_global_zero and self.checkpoint.due
        stop, due, bad = self.consensus.exchange((self.request.signum, int(due), bad_step))
        if bad:
            raise TrainingFailed(self.nonfinite.describe(trainer, bad, self.checkpoint.last_path))
        if stop:
            self.stop_signal = stop
            self.request.clear()
        return bool(due)

    def _stop_validation(
        self, trainer: L.Trainer, pl_module: L.LightningModule, averages: Sequence[WeightAveraging] = ()
    ) -> None:
        self._exchange(trainer, 0)
        if self.stop_signal and not is_accumulating(trainer):  # the gradients so far would be lost
            self.checkpoint.validation_pending = True
            for each in averages:  # put back the network's own weights
                each._swap_models(pl_module)
            self.checkpoint.write_last(trainer)
            self.saved_stop_signal = self.stop_signal
            self.raise_if_stopped()

    def _refuse_bad_steps(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if bad := self.nonfinite.find_bad_step(trainer, pl_module, wait=True):
            raise TrainingFailed(self.nonfinite.describe(trainer, bad, self.checkpoint.last_path))


class StopBeforeStep(L.Callback):
    """Ends the training before the next step begins, when everything of the step before is logged.

    It must be the first callback, so that no other one takes part in the step that does not happen.

    Args:
        control: Callback that agreed on the stop.
    """

    def __init__(self, control: RunControl) -> None:
        self.control = control

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop before a step."""
        self.control.raise_if_stopped()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before an epoch."""
        self.control.raise_if_stopped()


def _dismiss_observer() -> None:
    """Keep Lightning's observer from killing this process because other ranks have ended, as they should."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread.__dict__["_child_processes"] = []
