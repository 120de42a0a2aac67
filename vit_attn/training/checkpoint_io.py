"""Atomic checkpoint files, written beside their target and renamed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.errors import UserError
from vit_attn.files import whole_file

RENAMED_CALLBACKS = {"TuningComparison": "FinetuneComparison"}
"""Class names of callbacks by those of earlier versions, under which their checkpoints hold the callbacks' state."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are always complete; a failed write is an error.

    Lightning's own plugin stages the file in ``TMPDIR`` and moves it, which on another disk is a copy over the previous
    checkpoint, and ignores a missing permission.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; object stores (``s3://…``) are left to fsspec, whose uploads are atomic.

        Raises:
            WriteError: If it cannot be written; the previous checkpoint of that name stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(Path(path), "checkpoint") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint without running code in it; tensors that training changes in place are copied.

        Raises:
            UserError: If there is none, or if it is incomplete.
        """
        checkpoint = read_checkpoint(path)
        for name in ("optimizer_states", "current_model_state", "averaging_state"):
            if name in checkpoint:
                checkpoint[name] = apply_to_collection(checkpoint[name], Tensor, torch.clone)
        if isinstance(states := checkpoint.get("callbacks"), dict):
            checkpoint["callbacks"] = {RENAMED_CALLBACKS.get(name, name): state for name, state in states.items()}
        return checkpoint


def check_shapes(state: Mapping[str, Tensor], stored: Mapping[str, Tensor], arch: str) -> None:
    """Check that a checkpoint is of this network.

    Args:
        state: State dict of the task.
        stored: State dict in the checkpoint.
        arch: Name of the network, for the message.

    Raises:
        UserError: If it is not; the message names the first weight whose shape differs.
    """
    for name in (*state, *stored):
        here, there = (tuple(each[name].shape) if name in each else None for each in (state, stored))
        if here != there:
            raise UserError(
                f"the checkpoint is of another network than {arch} with these options: {name} has "
                f"shape {there or 'none'} in the checkpoint and {here or 'none'} here"
            )
