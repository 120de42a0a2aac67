"""What of a split a command measures, where the trainer limits its batches."""

from dataclasses import dataclass
from typing import Any

NAMES = {"val": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}
"""Settings of the trainer that limit a stage."""


@dataclass(frozen=True)
class Limit:
    """A part of a split.

    Args:
        setting: What limits it, as the user set it.
        images: Images of the part.
        of: Images of the split.
    """

    setting: str
    images: int
    of: int


def limit_of(trainer: Any, stage: str, images: int, batch_size: int) -> Limit | None:
    """What limits a stage, if it does not take all images.

    Args:
        trainer: That of the command.
        stage: ``val``, ``test`` or ``predict``.
        images: Images of its split.
        batch_size: Images of a batch on each device.
    """
    limit, ranks = getattr(trainer, NAMES[stage], 1.0), trainer.world_size
    per_step = batch_size if ranks == 1 else max(2, batch_size) * ranks
    steps = -(-images // per_step)
    taken = int(limit * steps) if isinstance(limit, float) else limit
    if not 0 < taken < steps:
        return None
    # one device has full batches and a smaller one at the end, several have equal ones
    part = taken * per_step if ranks == 1 else taken * (images // steps) + min(taken, images % steps)
    return Limit(_setting(trainer, stage), part, images)


def _setting(trainer: Any, stage: str) -> str:
    """The setting that limits a stage: Lightning derives its limits from others where these are given."""
    names = ("fast_dev_run", "overfit_batches") if stage == "val" else ("fast_dev_run",)
    name = next((each for each in names if getattr(trainer, each, 0)), NAMES[stage])
    return f"trainer.{name}={getattr(trainer, name)}"
