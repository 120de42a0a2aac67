"""Checks of the trainer's settings and callbacks before the first step."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)

from vit_attn.errors import UserError, did_you_mean

BETTER = {"min": "lower", "max": "higher"}
MINIMUM = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "log_every_n_steps": 0}
"""Smallest values of these settings of the trainer; Lightning divides by the first two."""
UNSUPPORTED: dict[type[Callback], str] = {
    BatchSizeFinder: "the batches are made before it runs, so the run would not use what it finds: try sizes with "
    "--data.batch_size=… --trainer.max_steps=20",
    LearningRateFinder: "the schedule is made before it runs, so the run would not use what it finds: try rates with "
    "--model.lr=… and a short --trainer.max_epochs",
    StochasticWeightAveraging: "it replaces the schedule, and no validation uses its average, so best.ckpt would not "
    "have it: --model.ema=0.999 averages weights and validates the average",
}
"""Callbacks of Lightning whose result a run would not use, and the alternatives."""
LENGTHS = ("max_epochs", "max_steps", "limit_train_batches")
ENDLESS = ("max_epochs", "max_steps")
"""Lengths of which -1 is no limit."""


def check_trainer_settings(settings: Any) -> None:
    """Refuse settings of the trainer with which a run would train nothing, or that have no meaning.

    Args:
        settings: Settings of the trainer.

    Raises:
        UserError: If there are any.
    """
    if settings.get("enable_checkpointing") is False:
        raise UserError(
            "a run keeps its checkpoints: leave out trainer.enable_checkpointing=false; to keep none, "
            "--checkpoint.save_top_k=0 --checkpoint.save_last=false"
        )
    if settings.max_epochs == settings.max_steps == -1:
        raise UserError("the run needs an end: set trainer.max_epochs or trainer.max_steps")
    for name in LENGTHS:
        value = settings.get(name)
        if value == 0:
            raise UserError(f"trainer.{name}=0 trains nothing: set at least 1, or leave it out")
        if value is not None and value < 0 and not (value == -1 and name in ENDLESS):
            endless = ", or -1 for no limit" if name in ENDLESS else ""
            raise UserError(f"trainer.{name} must be at least 1{endless}, got {value}")
    if _is_no_time(settings.get("max_time")):
        raise UserError(f"trainer.max_time={settings.max_time} trains nothing: set days:hours:minutes:seconds")
    if settings.get("val_check_interval") == 0:
        raise UserError(
            "trainer.val_check_interval=0 has no meaning: for no validation set trainer.limit_val_batches=0, else the "
            "batches or the fraction of an epoch between two"
        )
    for name, minimum in MINIMUM.items():
        value = settings.get(name)
        if value is not None and value < minimum:
            raise UserError(f"trainer.{name} must be at least {minimum}, got {value}")


def check_evaluates_images(settings: Any, command: str) -> None:
    """Refuse to evaluate no image at all, which would succeed without a result.

    Args:
        settings: Settings of the trainer.
        command: ``validate``, ``test`` or ``predict``.

    Raises:
        UserError: If so.
    """
    name = f"limit_{'val' if command == 'validate' else command}_batches"
    if settings.get(name) == 0:
        raise UserError(f"trainer.{name}=0 leaves nothing to {command}: set at least 1, or leave it out")


def check_weight_averaging(callbacks: Iterable[Any], ema: float | None) -> None:
    """Refuse two averages of the weights: one would average the other, or replace it.

    Args:
        callbacks: Callbacks of the trainer, without those that the model adds.
        ema: Value of ``model.ema``.

    Raises:
        UserError: If there are two.
    """
    names = [_name(each) for each in callbacks if isinstance(each, WeightAveraging)]
    if len(names) + (ema is not None) > 1:
        both = " and ".join([*(["model.ema"] if ema is not None else []), *names])
        raise UserError(f"weights are averaged once: leave out one of {both}")


def check_callbacks(callbacks: Iterable[Any], logged: Mapping[str, str], validates: bool = True) -> None:
    """Refuse callbacks whose result the run would not use, and callbacks that monitor a metric wrongly.

    Args:
        callbacks: Callbacks of the trainer.
        logged: Metrics that the task logs during training, with ``min`` or ``max`` for the better end of each.
        validates: Whether the run has validations, in which ``val/…`` is logged.

    Raises:
        UserError: If there are any; if a metric is unknown, with similar names, or if ``mode`` keeps the worst.
    """
    callbacks = list(callbacks)
    for callback in callbacks:
        for kind, reason in UNSUPPORTED.items():
            if isinstance(callback, kind):
                raise UserError(f"{_name(callback)}: {reason}")
        monitor, mode, name = getattr(callback, "monitor", None), getattr(callback, "mode", None), _name(callback)
        if not isinstance(monitor, str):
            continue
        best = logged.get(monitor)
        if best is None and not _may_be_logged(monitor, callback, callbacks):
            raise UserError(
                f"{name}: there is no metric {monitor!r}{did_you_mean(monitor, logged)}; logged are {', '.join(logged)}"
            )
        if best is not None and mode in BETTER and mode != best:
            option = "--checkpoint.mode" if isinstance(callback, ModelCheckpoint) else "--trainer.callbacks.mode"
            raise UserError(
                f"{name}: a {BETTER[best]} {monitor} is better, but mode={mode} keeps the worst: add {option}={best}"
            )
        if not validates and monitor.startswith("val/") and isinstance(callback, EarlyStopping) and callback.strict:
            raise UserError(
                f"{name}: {monitor} is logged by validations, and trainer.limit_val_batches=0 has none: monitor "
                "train/loss, or validate"
            )


def _is_no_time(max_time: Any) -> bool:
    """Return true for a duration of 0; other texts that are none are left to Lightning."""
    if isinstance(max_time, str):
        return max_time.count(":") == 3 and not max_time.strip("0:")
    if isinstance(max_time, Mapping):
        return not any(max_time.values())
    return isinstance(max_time, timedelta) and not max_time


def _may_be_logged(monitor: str, callback: Any, callbacks: list[Any]) -> bool:
    """Return true for a metric that the task does not log but Lightning or a callback may."""
    if isinstance(callback, ModelCheckpoint) and monitor in ("epoch", "step"):
        return True
    names = {type(each).__name__ for each in callbacks}
    of_user = any(not type(each).__module__.startswith(("lightning.", "vit_attn.")) for each in callbacks)
    return of_user or (monitor.startswith("lr-") and "LearningRateMonitor" in names)


def _name(callback: Any) -> str:
    return type(callback).__name__
