"""Where in a run, and on which of its devices, batches are put together."""

from dataclasses import dataclass

import lightning as L


@dataclass(frozen=True)
class RunProgress:
    """What a loader must know of the run; without one it is at the start, on one device.

    Args:
        trainer: The run's, if there is one.
    """

    trainer: L.Trainer | None

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return self.trainer.current_epoch if self.trainer else 0

    @property
    def taken(self) -> int:
        """Batches of this epoch that were taken already, where a run is resumed within an epoch."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    @property
    def dealt(self) -> dict[str, int]:
        """What the training loader of the run that is resumed kept of itself.

        Lightning hands it to a loader that is made after the checkpoint was read; ours is made before, when the
        schedule asks for the length of an epoch, and lightning keeps it for one that never comes.
        """
        states = getattr(self.trainer.fit_loop, "_combined_loader_states_to_load", []) if self.trainer else []
        return dict(states[0]) if states else {}

    @property
    def step(self) -> int:
        """Batches that training has taken so far, this one among them, whatever the optimiser did with them."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx + 1 if self.trainer else 1

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        return self.trainer.global_step / self.trainer.estimated_stepping_batches if self.trainer else 0.0

    @property
    def devices(self) -> int:
        """Devices of this machine."""
        return max(1, self.trainer.num_devices) if self.trainer else 1

    @property
    def ranks(self) -> tuple[int, int]:
        """Number of ranks, and which of them this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @property
    def trains(self) -> bool:
        """Whether this is a run of ``fit``, or none yet."""
        return self.trainer is None or self.trainer.state.fn == "fit"
