"""Position of a trainer within its run, which Lightning keeps in private attributes."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging

from vit_attn.training.metrics import is_logging_step


def is_trial(trainer: L.Trainer) -> bool:
    """Return true for a run of a few batches that leaves no files (``fast_dev_run``)."""
    return bool(getattr(trainer, "fast_dev_run", False))


def is_fitting(trainer: L.Trainer) -> bool:
    """Return true while the trainer fits, in training or validation but not in the sanity check before it."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_accumulating(trainer: L.Trainer) -> bool:
    """Return true between the batches of one optimiser step, whose gradients no checkpoint holds."""
    return trainer.fit_loop._should_accumulate()


def is_run_finished(trainer: L.Trainer) -> bool:
    """Return true if the run has taken all its steps or epochs, or if a callback asked it to stop early."""
    steps, epochs, progress = trainer.max_steps, trainer.max_epochs, trainer.fit_loop.epoch_progress
    done = 0 <= steps <= trainer.global_step
    done |= epochs is not None and 0 <= epochs <= progress.current.state_dict()["processed"]
    return bool(done or _stops_early(trainer))


def ends_within_epoch(trainer: L.Trainer) -> bool:
    """Return true if the loop leaves the epoch after this batch; it then counts the epoch as complete."""
    return _stops_early(trainer) or 0 <= trainer.max_steps <= trainer.global_step


def is_limited_by_steps(trainer: L.Trainer) -> bool:
    """Return true if the length of the run is a number of steps rather than epochs."""
    return trainer.max_steps != -1


def step_limit(trainer: L.Trainer) -> int | None:
    """Return the number of steps that ends the run, or None if its epochs are over before, or time limits it."""
    return trainer.max_steps if -1 < trainer.max_steps <= trainer.estimated_stepping_batches else None


def is_validation_next(trainer: L.Trainer) -> bool:
    """Return true if a validation follows this batch."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def is_logging_point(trainer: L.Trainer) -> bool:
    """Return true if the values of the step that ends here are logged, for which the host reads them."""
    return not is_accumulating(trainer) and is_logging_step(trainer)


def logging_step(trainer: L.Trainer) -> int:
    """Return the step under which values of the step that ends here are logged."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def active_weight_averages(trainer: L.Trainer) -> list[WeightAveraging]:
    """List the callbacks that hold averaged weights, which take the place of the network's in a validation."""
    callbacks: Any = getattr(trainer, "callbacks", [])
    return [each for each in callbacks if isinstance(each, WeightAveraging) and each._average_model is not None]


def _stops_early(trainer: L.Trainer) -> bool:
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)
