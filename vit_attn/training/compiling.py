"""Compilation of a training step."""

from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from vit_attn.errors import UserError

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""Modes of ``torch.compile``; the latter two replay CUDA graphs."""


def compile_step(step: Callable[..., Any], mode: CompileMode, trainer: L.Trainer | None = None) -> Callable[..., Any]:
    """Compile a function of a training step; each shape of its arguments is compiled by itself.

    A shape that changes in mid-run, such as the number of tokens, would otherwise become a variable of the program.

    Args:
        step: The function, with all modules as arguments.
        mode: Mode of the compiler.
        trainer: Trainer of the run, whose settings are checked.

    Raises:
        UserError: If the mode replays CUDA graphs and gradients are accumulated, which would be overwritten.
    """
    if mode == "default":
        return torch.compile(step, dynamic=False)
    if trainer is not None and _accumulates(trainer):
        raise UserError(f"compile_mode={mode} needs a step for each batch, without accumulation: use default")
    compiled = torch.compile(step, dynamic=False, mode=mode)

    def replay(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*arguments)

    return replay


def _accumulates(trainer: L.Trainer) -> bool:
    """Test whether gradients are accumulated, now or by a schedule later."""
    callbacks: list[L.Callback] = getattr(trainer, "callbacks", [])
    schedules = [each.scheduling for each in callbacks if isinstance(each, GradientAccumulationScheduler)]
    return trainer.accumulate_grad_batches != 1 or any(set(each.values()) != {1} for each in schedules)
