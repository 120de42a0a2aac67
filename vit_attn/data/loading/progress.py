"""The state of a run that data loaders depend on: epoch, step, rank and device."""

from dataclasses import dataclass

import lightning as L
import torch


@dataclass(frozen=True)
class RunProgress:
    """Progress of a Trainer's run; without a Trainer, the start of a run on one device.

    Args:
        trainer: Lightning's Trainer, if there is one.
    """

    trainer: L.Trainer | None

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return self.trainer.current_epoch if self.trainer else 0

    @property
    def batches_consumed(self) -> int:
        """Batches of this epoch that the run had trained on before it was resumed."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    @property
    def loader_state(self) -> dict[str, int]:
        """State of the training loader in the checkpoint that the run resumes from.

        Lightning restores loaders that are made after the checkpoint was read. Ours is made before, when the schedule
        asks for the length of an epoch, and Lightning keeps the state for a loader that never comes.
        """
        states = getattr(self.trainer.fit_loop, "_combined_loader_states_to_load", []) if self.trainer else []
        return dict(states[0]) if states else {}

    @property
    def step(self) -> int:
        """Training batches before the current one in the run, whatever the optimiser did with them."""
        # Lightning counts a batch once it is fetched, so while it is fetched this is the one before
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1 if self.trainer else 0

    @property
    def fraction(self) -> float:
        """Fraction of the training that is done, in [0, 1]."""
        return self.trainer.global_step / self.trainer.estimated_stepping_batches if self.trainer else 0.0

    @property
    def local_devices(self) -> int:
        """Number of devices on this machine."""
        return max(1, self.trainer.num_devices) if self.trainer else 1

    @property
    def world_size(self) -> int:
        """Number of ranks, one process and device each."""
        return self.trainer.world_size if self.trainer else 1

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def device(self) -> torch.device:
        """Device of this process: the Trainer's, else the CPU."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def overfits(self) -> bool:
        """Tell if ``overfit_batches`` asks for the same few batches in every epoch."""
        return bool(getattr(self.trainer, "overfit_batches", 0))

    def trains_on(self, loader: object) -> bool:
        """Tell if the Trainer is training on a loader now, and no loop of the user's own iterates it.

        A Trainer stays attached to its data when it has finished, with the epoch and the batches of its end.
        """
        if self.trainer is None or not self.trainer.training:
            return False
        loaders = self.trainer.fit_loop._combined_loader
        return loaders is not None and any(each is loader for each in loaders.flattened)

    @property
    def is_fitting(self) -> bool:
        """Tell if this is a run of ``fit``; true without a Trainer."""
        return self.trainer is None or self.trainer.state.fn == "fit"
