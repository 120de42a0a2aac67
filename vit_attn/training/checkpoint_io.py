"""Checkpoints as whole files, written beside their target and renamed."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vit_attn.files import whole_file


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
