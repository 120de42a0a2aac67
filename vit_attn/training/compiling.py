"""Compilation of a training step."""

from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import torch

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
    if trainer is not None and trainer.accumulate_grad_batches != 1:
        raise UserError(f"compile_mode={mode} needs trainer.accumulate_grad_batches=1: use compile_mode=default")
    compiled = torch.compile(step, dynamic=False, mode=mode)

    def replay(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*arguments)

    return replay
