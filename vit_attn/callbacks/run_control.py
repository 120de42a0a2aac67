"""What a run decides between its steps: to stop, to write its state, to end where numbers are no numbers."""

import shlex
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
MOST_IN_A_ROW = 100
"""Bad steps in a row that are skipped, where that was asked for or a loss is scaled; more do not mend themselves."""
REMEMBERED = 64
"""Steps whose addresses are kept: as many as may pass until a bad one is seen."""


@dataclass(frozen=True)
class StepAddress:
    """Where in the run a step was.

    Args:
        epoch: The epoch, from 0.
        batches: Its batches of the epoch, from 0; several where gradients are accumulated.
        lr: Learning rate of its last group of parameters.
    """

    epoch: int
    batches: list[int]
    lr: float


class RunControl(Checkpoint):
    """Ends a run in good order, at the same step on all ranks.

    After each step and each batch of validation, ranks exchange whether one was asked to stop, whether the last state
    is to be written, and whether an update was not finite. Nothing is read from the device in a step.

    Args:
        checkpoint: Writes the last state.
        request: What signals asked for; by default of the command that runs.
        on_stop: Is called with the signal on the first rank, before any rank ends.
    """

    def __init__(
        self,
        checkpoint: RunCheckpoint,
        request: stopping.StopRequest | None = None,
        on_stop: Callable[[int], None] = lambda signum: None,
    ) -> None:
        self.checkpoint, self.request, self.on_stop = checkpoint, request or stopping.current(), on_stop
        self.consensus = Consensus(3)
        self.stop = 0
        """The signal that all ranks know of."""
        self.leaving = 0
        """The same, once the state is written."""
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
        here = StepAddress(trainer.current_epoch, [], float(rate))
        self.addresses.setdefault(trainer.global_step + 1, here).batches.append(batch_idx)
        self.addresses.pop(trainer.global_step + 1 - REMEMBERED, None)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act at the end of an optimiser's step, unless a validation or the end of the epoch follows and does."""
        due = self._agree(trainer, self._bad_step(trainer, pl_module))
        if trainer.fit_loop._should_accumulate() or _validation_follows(trainer):
            return
        if trainer.is_last_batch and not (_counts_steps(trainer) and _ends_within_epoch(trainer)):
            return
        if self.stop or due or _ends_within_epoch(trainer):
            self.checkpoint.write_last(trainer)
        self.leaving = self.stop

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
        saved = self.checkpoint.saved_at_step == trainer.global_step
        due = self._agree(trainer, 0) and not saved
        if _counts_steps(trainer):  # Lightning would take a state of here for an epoch whose end is to come
            self.leaving = self.stop if saved else 0
            return
        if self.stop or due:
            self.checkpoint.write_last(trainer)
        self.leaving = self.stop

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Settle with all ranks whether a last signal came; from here on one ends the process at once."""
        self._refuse_bad_steps(trainer, pl_module)
        stop, _, _ = self.consensus.settle((self.request.signum, 0, 0))
        self.stop = stop or self.stop
        self.request.under_way = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let all ranks end together, when the first has drawn and written what was left."""
        if isinstance(exception, stopping.Stopped) and trainer.is_global_zero:
            self.on_stop(exception.signum)
        if isinstance(exception, (stopping.Stopped, TrainingFailed)) and trainer.world_size > 1:
            _dismiss_observer()
            self.consensus.settle((0, 0, 0))

    def _agree(self, trainer: L.Trainer, bad_step: int) -> bool:
        """Learn of a signal that some rank got; whether the state is to be written.

        Raises:
            TrainingFailed: If an update was not finite and the run is to end there.
        """
        due = trainer.is_global_zero and self.checkpoint.due
        stop, due, bad = self.consensus.exchange((self.request.signum, int(due), bad_step))
        if bad:
            raise TrainingFailed(self._not_finite(trainer, bad))
        if stop:
            self.stop = stop
            self.request.clear()
        return bool(due)

    def _stop_validation(
        self, trainer: L.Trainer, pl_module: L.LightningModule, averages: Sequence[WeightAveraging] = ()
    ) -> None:
        self._agree(trainer, 0)
        if self.stop and not trainer.fit_loop._should_accumulate():  # the gradients so far would be lost
            self.checkpoint.validation_pending = True
            for each in averages:  # are validated in place of the network's own weights
                each._swap_models(pl_module)
            self.checkpoint.write_last(trainer)
            self.leaving = self.stop
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
            raise stopping.Stopped(self.leaving)

    def _bad_step(self, trainer: L.Trainer, pl_module: L.LightningModule, now: bool = False) -> int:
        """The first step whose update was not finite, if the run is to end there; what was skipped is reported."""
        gate = getattr(pl_module, "gate", None)
        if gate is None or not (now or trainer.global_step % CHECK_EVERY == 0):
            return 0
        count, first, in_a_row = gate.counts.tolist() if now else self._earlier(gate.counts)
        if gate.sticky:
            return first if count else 0
        if in_a_row >= MOST_IN_A_ROW:
            return trainer.global_step
        if count > self._skipped:
            rank_zero_warn(f"{count - self._skipped} updates were not finite and skipped, {count} so far")
            self._skipped = count
        return 0

    def _earlier(self, record: torch.Tensor) -> tuple[int, int, int]:
        """What the copy of the look before says; by now it has arrived. On the host, what is so now."""
        if record.device.type == "cpu":
            return tuple(record.numpy().tolist())
        host = torch.empty_like(record, device="cpu", pin_memory=True)
        host.copy_(record, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._asked.append((host, arrived))
        if len(self._asked) < 2:
            return 0, -1, 0
        before, event = self._asked.popleft()
        event.synchronize()
        return tuple(before.numpy().tolist())

    def _not_finite(self, trainer: L.Trainer, step: int) -> str:
        """What happened, where, and how to go on."""
        at = self.addresses.get(step)
        where, images = "", ""
        if at is not None:
            batches = ", ".join(str(batch + 1) for batch in at.batches)
            where = f" (epoch {at.epoch + 1}, batch {batches}, learning rate {at.lr:.3g})"
            data: Any = getattr(trainer, "datamodule", None)
            if hasattr(data, "batch_names"):
                names = [name for batch in at.batches for name in data.batch_names(at.epoch, batch)]
                images = f"; its images: {', '.join(names)}"
        last, told = self.checkpoint.last_path, "no checkpoint was written before it"
        if last.is_file():
            again = f"vit-attn fit --resume {shlex.quote(str(last.parent.parent))} --trainer.detect_anomaly=true"
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


def _counts_steps(trainer: L.Trainer) -> bool:
    """Whether the length of the run is a number of steps."""
    return trainer.max_steps != -1


def _ends_within_epoch(trainer: L.Trainer) -> bool:
    """Whether the loop leaves the epoch here, which it would then take for a whole one."""
    stops = trainer.should_stop and trainer.fit_loop._can_stop_early
    return stops or 0 <= trainer.max_steps <= trainer.global_step


def _dismiss_observer() -> None:
    """Keep Lightning's observer from killing this process because other ranks have ended, as they should."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread.__dict__["_child_processes"] = []
