"""What a run decides between its steps: to stop, to write its state, to end where numbers are no numbers."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.errors import TrainingFailed
from vit_attn.training import stopping
from vit_attn.training.consensus import Consensus

CHECK_EVERY = 20
"""Steps from one look at the record of bad steps to the next; each looks at what the one before asked for."""
REMEMBERED = 64
"""Steps whose addresses are kept: as many as may pass until a bad one is seen."""


@dataclass(frozen=True)
class StepAddress:
    """Where in the run a step was.

    Args:
        epoch: The epoch, from 0.
        batch: Its batch of the epoch, from 0.
        lr: Learning rate of its last group of parameters.
    """

    epoch: int
    batch: int
    lr: float


class RunControl(Checkpoint):
    """Ends a run in good order, at the same step on all ranks.

    After each step and each batch of validation, ranks exchange whether one was asked to stop, whether the last state
    is to be written, and whether an update was not finite. Nothing is read from the device in a step.

    Args:
        checkpoint: Writes the last state.
        request: What signals asked for; by default of the command that runs.
    """

    def __init__(self, checkpoint: RunCheckpoint, request: stopping.StopRequest | None = None) -> None:
        self.checkpoint, self.request = checkpoint, request or stopping.current()
        self.consensus = Consensus(3)
        self.leaving = 0
        self.addresses: dict[int, StepAddress] = {}
        self._asked: deque[tuple[torch.Tensor, Any]] = deque()
        self._skipped = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on a signal is answered at the end of a step."""
        self.consensus = Consensus(3, trainer.world_size)
        if trainer.world_size > 1:
            self.request.deadline = stopping.DEADLINE
        self.checkpoint.guard = lambda: self._refuse_bad_steps(trainer, pl_module)
        self.request.under_way = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember where in the run the step is."""
        rate = trainer.optimizers[0].param_groups[-1]["lr"] if trainer.optimizers else 0.0
        self.addresses[trainer.global_step + 1] = StepAddress(trainer.current_epoch, batch_idx, float(rate))
        self.addresses.pop(trainer.global_step + 1 - REMEMBERED, None)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act at the end of an optimiser's step, unless a validation or the end of the epoch follows and does."""
        stop, due = self._agree(trainer, self._bad_step(trainer, pl_module))
        if trainer.fit_loop._should_accumulate() or trainer.is_last_batch or _validation_follows(trainer):
            self.leaving = stop
            return
        if stop or due or _ends_within_epoch(trainer):
            self.checkpoint.write_last(trainer)
        self.leaving = stop

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave before the validation, which is run when the run goes on."""
        if _is_in_fit(trainer):
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
        """Leave the validation, which is run again from its beginning when the run goes on."""
        if _is_in_fit(trainer):
            self._stop_validation(trainer, pl_module, averages=_averages(trainer))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the state where no validation did, and leave before the next epoch."""
        stop, due = self._agree(trainer, 0)
        self.leaving = stop or self.leaving
        if (self.leaving or due) and self.checkpoint.saved_at_step != trainer.global_step:
            self.checkpoint.write_last(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Settle with all ranks whether a last signal came; from here on one ends the process at once."""
        self._refuse_bad_steps(trainer, pl_module)
        stop, _, _ = self.consensus.settle((self.request.signum, 0, 0))
        self.leaving = stop or self.leaving
        self.request.under_way = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let all ranks end together, when the first has drawn and written what was left."""
        if isinstance(exception, (stopping.Stopped, TrainingFailed)) and trainer.world_size > 1:
            _dismiss_observer()
            self.consensus.settle((0, 0, 0))

    def _agree(self, trainer: L.Trainer, bad_step: int) -> tuple[int, bool]:
        """The signal that some rank got, and whether the state is to be written.

        Raises:
            TrainingFailed: If an update was not finite and the run is to end there.
        """
        due = trainer.is_global_zero and self.checkpoint.due
        stop, due, bad = self.consensus.exchange((self.request.signum, int(due), bad_step))
        if bad:
            raise TrainingFailed(self._not_finite(trainer, bad))
        return stop, bool(due)

    def _stop_validation(
        self, trainer: L.Trainer, pl_module: L.LightningModule, averages: Sequence[WeightAveraging] = ()
    ) -> None:
        stop, _ = self._agree(trainer, 0)
        self.leaving = stop or self.leaving
        if self.leaving:
            self.checkpoint.validation_pending = True
            for each in averages:  # are validated in place of the network's own weights
                each._swap_models(pl_module)
            self.checkpoint.write_last(trainer)
            self.leave()

    def _refuse_bad_steps(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if bad := self._bad_step(trainer, pl_module, now=True):
            raise TrainingFailed(self._not_finite(trainer, bad))

    def leave(self) -> None:
        """End the training, if that was agreed and the state is written.

        Raises:
            Stopped: If so.
        """
        if self.leaving:
            self.request.clear()
            raise stopping.Stopped(self.leaving)

    def _bad_step(self, trainer: L.Trainer, pl_module: L.LightningModule, now: bool = False) -> int:
        """The first step whose update was not finite, if the run is to end there; what was skipped is reported."""
        gate = getattr(pl_module, "gate", None)
        if gate is None or not (now or trainer.global_step % CHECK_EVERY == 0):
            return 0
        if now:
            count, first = gate.record.tolist()
        else:
            count, first = self._earlier(gate.record)
        if gate.sticky:
            return first if count else 0
        if count > self._skipped:
            rank_zero_warn(f"{count - self._skipped} updates were not finite and skipped, {count} so far")
            self._skipped = count
        return 0

    def _earlier(self, record: torch.Tensor) -> tuple[int, int]:
        """What the copy of the look before says; by now it has arrived. On the host, what is so now."""
        if record.device.type == "cpu":
            count, first = record.numpy().tolist()
            return count, first
        host = torch.empty_like(record, device="cpu", pin_memory=True)
        host.copy_(record, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._asked.append((host, arrived))
        if len(self._asked) < 2:
            return 0, -1
        before, event = self._asked.popleft()
        event.synchronize()
        count, first = before.numpy().tolist()
        return count, first

    def _not_finite(self, trainer: L.Trainer, step: int) -> str:
        """What happened, where, and how to go on."""
        at = self.addresses.get(step)
        where, images = "", ""
        if at is not None:
            where = f" (epoch {at.epoch + 1}, batch {at.batch + 1}, learning rate {at.lr:.3g})"
            data: Any = getattr(trainer, "datamodule", None)
            if hasattr(data, "batch_names"):
                images = f"; its images: {', '.join(data.batch_names(at.epoch, at.batch))}"
        last, told = self.checkpoint.last_path, "no checkpoint was written before it"
        if last.is_file():
            again = f"vit-attn fit --resume {last.parent.parent} --trainer.detect_anomaly=true"
            told = f"last good checkpoint: {last}. To see which operation fails: {again}"
        return (
            f"step {step}{where}: the update is not finite and was not applied, nor was any after it{images}; {told}. "
            "To leave such updates out: --model.nonfinite=skip; else lower --model.lr"
        )


class LeaveBeforeStep(L.Callback):
    """Ends the training before a step begins, when all that belongs to the one before is logged; stands first.

    Args:
        control: Says whether that was agreed.
    """

    def __init__(self, control: RunControl) -> None:
        self.control = control

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave before a step."""
        self.control.leave()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave before an epoch."""
        self.control.leave()


def _averages(trainer: L.Trainer) -> list[WeightAveraging]:
    callbacks: Any = getattr(trainer, "callbacks", [])
    return [each for each in callbacks if isinstance(each, WeightAveraging) and each._average_model is not None]


def _is_in_fit(trainer: L.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _validation_follows(trainer: L.Trainer) -> bool:
    fetcher: Any = trainer.fit_loop._data_fetcher
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _ends_within_epoch(trainer: L.Trainer) -> bool:
    """Whether the loop leaves the epoch here, which it would then take for a whole one."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


def _dismiss_observer() -> None:
    """Keep Lightning's observer from killing this process because other ranks have ended, as they should."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread.__dict__["_child_processes"] = []
