"""One-line errors from exceptions of Lightning and torch during a run."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vit_attn.errors import TrainingFailed, UserError, is_out_of_memory

LIGHTNING = str(Path(lightning.__file__).parent)
LIGHTNING_LOOPS = str(Path(LIGHTNING, "pytorch", "loops"))
THIS_PACKAGE = str(Path(__file__).parents[2])
PYTHON = str(Path(traceback.__file__).parent)
LIGHTNING_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, ArithmeticError, ImportError)
"""Exceptions that Lightning raises for settings it cannot follow, beside its MisconfigurationException."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Convert exceptions of Lightning, and out of memory, to one-line errors; bugs of this package pass unchanged.

    An exception is Lightning's if it was raised there; before the first batch also if it was raised in what Lightning
    calls, as when processes connect to each other.

    Raises:
        UserError: In place of such an exception.
        TrainingFailed: If another process of the run has ended, or if an operation returned NaN.
    """
    try:
        yield
    except (UserError, TrainingFailed, OSError):
        raise
    except Exception as error:
        if "returned nan values" in str(error):  # by trainer.detect_anomaly, whose warning has the line of the code
            raise TrainingFailed(f"step {(_find_step(error) or 0) + 1}: {' '.join(str(error).split())}") from error
        if _lost_a_rank(error):
            raise TrainingFailed("another rank has ended; its own output has the reason") from error
        if (line := _describe(error)) is None:
            raise
        raise UserError(" ".join(line.split())) from error


def _lost_a_rank(error: Exception) -> bool:
    """Return true if a process of the run no longer answers."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout")
    return torch.distributed.is_initialized() and any(sign in str(error) for sign in signs)


def _describe(error: Exception) -> str | None:
    """Describe an exception; None if it is a bug, whose traceback says more."""
    step = _find_step(error)
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
    if not isinstance(error, LIGHTNING_ERRORS) or not _is_from_lightning(error):
        return None
    kind = "" if type(error) in (RuntimeError, ValueError, ModuleNotFoundError) else f"{type(error).__name__}: "
    return f"Lightning cannot do this: {kind}{error} (VIT_ATTN_TRACEBACK=1 shows where)"


def _is_from_lightning(error: Exception) -> bool:
    files = [file for file in _traceback_files(error) if not file.startswith("<")]  # Python's own import
    if not files or files[-1].startswith(LIGHTNING):
        return bool(files)
    if any(file.startswith(LIGHTNING_LOOPS) for file in files):
        return False
    known = [file for file in files if "site-packages" not in file or file.startswith((LIGHTNING, THIS_PACKAGE))]
    known = [file for file in known if not file.startswith(PYTHON) or file.startswith((LIGHTNING, THIS_PACKAGE))]
    return bool(known) and known[-1].startswith(LIGHTNING)


def _traceback_files(error: Exception) -> list[str]:
    """List the files of the traceback, the one that raised the exception last."""
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def _find_step(error: Exception) -> int | None:
    """Find the number of optimiser steps before the exception; None if training had not begun."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, _TrainingEpochLoop):
            return owner.trainer.global_step
    return None
