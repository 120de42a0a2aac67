"""Number of images that a stage uses where the Trainer limits its batches."""

from dataclasses import dataclass

import lightning as L

SETTINGS = {"val": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}
"""The Trainer's setting that limits a stage."""


@dataclass(frozen=True)
class Limit:
    """A stage that uses only some images of its split.

    Args:
        setting: What limits it, as the user set it.
        images: Images that are used.
        of: Images of the split.
    """

    setting: str
    images: int
    of: int


def limit_of(trainer: L.Trainer, stage: str, images: int, batch_size: int) -> Limit | None:
    """Limit of a stage, or None if it uses all images.

    Args:
        trainer: The Trainer.
        stage: ``val``, ``test`` or ``predict``.
        images: Images of its split.
        batch_size: Images per batch on each device.
    """
    limit, ranks = getattr(trainer, SETTINGS[stage], 1.0), trainer.world_size
    per_step = batch_size if ranks == 1 else max(2, batch_size) * ranks
    steps = -(-images // per_step)
    limited = int(limit * steps) if isinstance(limit, float) else limit
    if not 0 < limited < steps:
        return None
    # one device has full batches and a smaller one at the end, several have equal ones
    part = limited * per_step if ranks == 1 else limited * (images // steps) + min(limited, images % steps)
    return Limit(_setting(trainer, stage), part, images)


def _setting(trainer: L.Trainer, stage: str) -> str:
    """The setting that limits a stage: Lightning derives its limits from others where these are given."""
    names = ("fast_dev_run", "overfit_batches") if stage == "val" else ("fast_dev_run",)
    name = next((each for each in names if getattr(trainer, each, 0)), SETTINGS[stage])
    return f"trainer.{name}={getattr(trainer, name)}"
