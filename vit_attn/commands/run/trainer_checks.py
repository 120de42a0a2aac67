"""Mistakes in the settings of Lightning's trainer: found before the first step where they can be, and one line each."""

import contextlib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vit_attn.errors import TrainingFailed, UserError, did_you_mean, is_out_of_memory

LIGHTNING = str(Path(lightning.__file__).parent)
LOOPS = str(Path(LIGHTNING, "pytorch", "loops"))
OURS = str(Path(__file__).parents[2])
REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, ArithmeticError, ImportError)
"""What Lightning raises for settings that it cannot follow, beside its own MisconfigurationException."""
BETTER = {"min": "lower", "max": "higher"}
LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "log_every_n_steps": 0}
"""The least that these settings of the trainer can be; Lightning divides by the first two."""
UNUSED: dict[type[Callback], str] = {
    BatchSizeFinder: "the batches are made before it looks, so the run would not use what it finds: try sizes with "
    "--data.batch_size=… --trainer.max_steps=20",
    LearningRateFinder: "the schedule is made before it looks, so the run would not use what it finds: try rates with "
    "--model.lr=… and a short --trainer.max_epochs",
    StochasticWeightAveraging: "it takes the place of the schedule, and no validation sees its average, so best.ckpt "
    "would not have it: --model.ema=0.999 averages weights and validates the average",
}
"""Callbacks of Lightning whose result a run of ours would not have, and what to do instead."""
LENGTHS = ("max_epochs", "max_steps", "limit_train_batches")


def check_settings(settings: Any) -> None:
    """Refuse settings of the trainer with which a run would train nothing, or that mean nothing.

    Args:
        settings: Of the trainer.

    Raises:
        UserError: If there is one.
    """
    if settings.get("enable_checkpointing") is False:
        raise UserError(
            "a run keeps its checkpoints: leave out trainer.enable_checkpointing=false; to keep none, "
            "--checkpoint.save_top_k=0 --checkpoint.save_last=false"
        )
    for name in LENGTHS:
        if settings.get(name) == 0:
            raise UserError(f"trainer.{name}=0 trains nothing: set at least 1, or leave it out")
    for name, least in LEAST.items():
        value = settings.get(name)
        if value is not None and value < least:
            raise UserError(f"trainer.{name} must be at least {least}, got {value}")


def check_parts(settings: Any, verb: str) -> None:
    """Refuse to measure no image at all, which would end well and say nothing.

    Args:
        settings: Of the trainer.
        verb: ``validate``, ``test`` or ``predict``.

    Raises:
        UserError: If so.
    """
    name = f"limit_{'val' if verb == 'validate' else verb}_batches"
    if settings.get(name) == 0:
        raise UserError(f"trainer.{name}=0 leaves nothing to {verb}: set at least 1, or leave it out")


def check_averages(callbacks: Iterable[Any], ema: float | None) -> None:
    """Refuse to average twice: the second average would be one of averages, or in the place of the first.

    Args:
        callbacks: Of the trainer, without what the model brings.
        ema: The model's setting.

    Raises:
        UserError: If so.
    """
    names = [_name(each) for each in callbacks if isinstance(each, WeightAveraging)]
    if len(names) + (ema is not None) > 1:
        both = " and ".join([*(["model.ema"] if ema is not None else []), *names])
        raise UserError(f"weights are averaged once: leave out one of {both}")


def check_callbacks(callbacks: Iterable[Any], logged: Mapping[str, str], validates: bool = True) -> None:
    """Refuse callbacks whose result the run would not use, that watch what is not logged, or that keep the worst.

    Args:
        callbacks: Of the trainer.
        logged: What the task logs while it trains, and which end of it is better, ``min`` or ``max``.
        validates: Whether the run has validations, in which ``val/…`` is logged.

    Raises:
        UserError: If there is one; if a metric is unknown, with what is close to it, or if ``mode`` does not fit it.
    """
    callbacks = list(callbacks)
    for callback in callbacks:
        for kind, reason in UNUSED.items():
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
                f"{name}: of {monitor} {BETTER[best]} is better, but mode={mode} asks for the opposite: add "
                f"{option}={best}"
            )
        if not validates and monitor.startswith("val/") and isinstance(callback, EarlyStopping) and callback.strict:
            raise UserError(
                f"{name}: {monitor} is logged by validations, and trainer.limit_val_batches=0 has none: watch "
                "train/loss, or validate"
            )


def _may_be_logged(monitor: str, callback: Any, callbacks: list[Any]) -> bool:
    """Whether a metric that the task does not log may be there all the same."""
    if isinstance(callback, ModelCheckpoint) and monitor in ("epoch", "step"):
        return True
    names = {type(each).__name__ for each in callbacks}
    of_user = any(not type(each).__module__.startswith(("lightning.", "vit_attn.")) for each in callbacks)
    return of_user or (monitor.startswith("lr-") and "LearningRateMonitor" in names)


def _name(callback: Any) -> str:
    return type(callback).__name__


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """One line for what Lightning refuses, and for memory that does not suffice; errors in our code stay as they are.

    An error is Lightning's if it was raised there; before the first batch also if it was raised in what it calls, as
    where processes find each other.

    Raises:
        UserError: Instead of such an error.
        TrainingFailed: If another process of the run has ended, or if an operation made numbers that are none.
    """
    try:
        yield
    except (UserError, TrainingFailed, OSError):
        raise
    except Exception as error:
        if "returned nan values" in str(error):  # by trainer.detect_anomaly, whose warning has the line of the code
            raise TrainingFailed(f"step {(_step(error) or 0) + 1}: {' '.join(str(error).split())}") from error
        if _lost_a_rank(error):
            raise TrainingFailed("another rank has ended; why is in what it printed") from error
        if (line := _line_of(error)) is None:
            raise
        raise UserError(" ".join(line.split())) from error


def _lost_a_rank(error: Exception) -> bool:
    """Whether a process of the run no longer answers."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout")
    return torch.distributed.is_initialized() and any(sign in str(error) for sign in signs)


def _line_of(error: Exception) -> str | None:
    """What to say of an error; nothing if its traceback says more."""
    step = _step(error)
    where = "" if step is None else f" in step {step + 1}"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if is_out_of_memory(error):
        return f"out of memory{where}: set a smaller --data.batch_size, or a smaller network ({reason})"
    if isinstance(error, MisconfigurationException):
        return str(error)
    if isinstance(error, RuntimeError) and reason.startswith("CUDA error"):
        return (
            f"the GPU failed{where} ({reason}): to see where, run again with CUDA_LAUNCH_BLOCKING=1 and "
            "VIT_ATTN_TRACEBACK=1"
        )
    if not isinstance(error, REFUSALS) or not _is_lightnings(error):
        return None
    kind = "" if type(error) in (RuntimeError, ValueError, ModuleNotFoundError) else f"{type(error).__name__}: "
    return f"Lightning cannot do this: {kind}{error} (VIT_ATTN_TRACEBACK=1 shows where)"


def _is_lightnings(error: Exception) -> bool:
    files = [file for file in _files(error) if not file.startswith("<")]  # Python's own import
    if not files or files[-1].startswith(LIGHTNING):
        return bool(files)
    if any(file.startswith(LOOPS) for file in files):
        return False
    known = [file for file in files if "site-packages" not in file or file.startswith((LIGHTNING, OURS))]
    of_python = str(Path(traceback.__file__).parent)
    known = [file for file in known if not file.startswith(of_python) or file.startswith((LIGHTNING, OURS))]
    return bool(known) and known[-1].startswith(LIGHTNING)


def _files(error: Exception) -> list[str]:
    """The files that the error came through, where it was raised last."""
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def _step(error: Exception) -> int | None:
    """Steps that the training had made; nothing if it had not begun."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, _TrainingEpochLoop):
            return owner.trainer.global_step
    return None
