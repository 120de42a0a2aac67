"""Checkpoints as whole files, written beside their target and renamed."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.files import whole_file

RENAMED_CALLBACKS = {"TuningComparison": "FinetuneComparison"}
"""Class names of callbacks by those of earlier versions, under which their checkpoints hold the callbacks' state."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint so that its name always holds a complete one; a refused write is an error.

    Lightning's own stages the file in ``TMPDIR`` and moves it, which on another disk is a copy over the previous
    checkpoint, and keeps silent where a permission is missing.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; object stores (``s3://…``) are left to fsspec, whose uploads are whole by themselves.

        Raises:
            WriteError: If the system refuses; the previous checkpoint of that name stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(Path(path), "checkpoint") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint, without running what is in it; what an optimiser changes in place is its own copy.

        Raises:
            UserError: If there is none, or if it is no whole one.
        """
        checkpoint = read_checkpoint(path)
        for name in ("optimizer_states", "current_model_state", "averaging_state"):
            if name in checkpoint:
                checkpoint[name] = apply_to_collection(checkpoint[name], torch.Tensor, torch.clone)
        if isinstance(states := checkpoint.get("callbacks"), dict):
            checkpoint["callbacks"] = {RENAMED_CALLBACKS.get(name, name): state for name, state in states.items()}
        return checkpoint
