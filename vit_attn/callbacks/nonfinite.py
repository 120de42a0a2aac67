"""Detection of updates that are not finite, and where in the run they were."""

import shlex
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

CHECK_EVERY = 20
"""Steps between two checks of the bad-step counters; each check reads the copy that the check before it started."""
MAX_SKIPPED_IN_A_ROW = 100
"""Consecutive updates that may be skipped, where that is allowed; a run with more does not recover."""
LOCATIONS_KEPT = 64
"""Steps whose location is kept, more than may pass until a bad step is detected."""


@dataclass(frozen=True)
class StepLocation:
    """Location of an optimiser step in the run.

    Args:
        epoch: The epoch, from 0.
        batches: Its batches of the epoch, from 0; several with gradient accumulation.
        lr: Learning rate of the last parameter group.
    """

    epoch: int
    batches: list[int]
    lr: float


class NonFiniteMonitor:
    """Finds steps whose update was not finite without waiting for the device in a step.

    :class:`vit_attn.training.update_gate.UpdateGate` undoes such updates and counts them on the device. On a GPU the
    counters are copied asynchronously and read at the next check.
    """

    def __init__(self) -> None:
        self.locations: dict[int, StepLocation] = {}
        self._copies: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
        self._num_skipped = 0

    def record_location(self, trainer: L.Trainer, batch_idx: int) -> None:
        """Record where in the run the next step is."""
        rate = trainer.optimizers[0].param_groups[-1]["lr"] if trainer.optimizers else 0.0
        here = StepLocation(trainer.current_epoch, [], float(rate))
        self.locations.setdefault(trainer.global_step + 1, here).batches.append(batch_idx)
        self.locations.pop(trainer.global_step + 1 - LOCATIONS_KEPT, None)

    def find_bad_step(self, trainer: L.Trainer, pl_module: L.LightningModule, wait: bool = False) -> int:
        """Return the first step that ends the run because its update was not finite, or 0; warn of skipped updates.

        Args:
            trainer: Trainer of the run.
            pl_module: The task, whose ``gate`` counts bad steps.
            wait: Whether to wait for the device and read the counters as they are now.
        """
        gate = getattr(pl_module, "gate", None)
        if gate is None or not (wait or trainer.global_step % CHECK_EVERY == 0):
            return 0
        count, first, in_a_row = gate.counts.tolist() if wait else self._previous_copy(gate.counts)
        if gate.sticky:
            return first if count else 0
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            return trainer.global_step
        if count > self._num_skipped:
            rank_zero_warn(f"{count - self._num_skipped} updates were not finite and skipped, {count} so far")
            self._num_skipped = count
        return 0

    def _previous_copy(self, record: torch.Tensor) -> tuple[int, int, int]:
        """Start a copy of the counters and read the one before, which has arrived by now; on the CPU read directly."""
        if record.device.type == "cpu":
            return tuple(record.numpy().tolist())
        host = torch.empty_like(record, device="cpu", pin_memory=True)
        host.copy_(record, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._copies.append((host, arrived))
        if len(self._copies) < 2:
            return 0, -1, 0
        before, event = self._copies.popleft()
        event.synchronize()
        return tuple(before.numpy().tolist())

    def describe(self, trainer: L.Trainer, step: int, last_checkpoint: Path) -> str:
        """Describe a bad step in one line: where it was, its images, and how to continue.

        Args:
            trainer: Trainer of the run.
            step: Number of the step, from 1.
            last_checkpoint: Path of the last checkpoint, which need not exist.
        """
        location = self.locations.get(step)
        where, images = "", ""
        if location is not None:
            batches = ", ".join(str(batch + 1) for batch in location.batches)
            where = f" (epoch {location.epoch + 1}, batch {batches}, learning rate {location.lr:.3g})"
            data: Any = getattr(trainer, "datamodule", None)
            if hasattr(data, "batch_names"):
                names = [name for batch in location.batches for name in data.batch_names(location.epoch, batch)]
                images = f"; its images: {', '.join(names)}"
        kept = "no checkpoint was written before it"
        if last_checkpoint.is_file():
            run = shlex.quote(str(last_checkpoint.parent.parent))
            kept = (
                f"last good checkpoint: {last_checkpoint}. To see which operation fails: "
                f"vit-attn fit --resume {run} --trainer.detect_anomaly=true"
            )
        return (
            f"step {step}{where}: the update is not finite and was not applied, nor was any after it{images}; {kept}. "
            "To leave such updates out: --model.nonfinite=skip; else lower --model.lr"
        )
