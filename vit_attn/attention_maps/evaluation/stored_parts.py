"""Finished parts of an evaluation in a folder, so that the same command goes on after it was stopped."""

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.measures import PartMeasures
from vit_attn.errors import UserError
from vit_attn.files import whole_file

SETTINGS = "settings.json"
Settings = Mapping[str, str | int | float | None]


class PartStore:
    """Folder of the parts of one evaluation.

    Args:
        folder: The folder; it need not exist.
        settings: Everything that determines the measures, but the pixels, by names that a message can use.

    Raises:
        UserError: If the folder has parts of an evaluation with other settings.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, dict(settings)
        stored = stored_settings(folder)
        if stored and (others := [name for name in {**settings, **stored} if stored.get(name) != settings.get(name)]):
            raise UserError(self._other(", ".join(others)))
        if not stored:
            with whole_file(folder / SETTINGS, "settings of judge") as file:
                file.write(json.dumps(self.settings, indent=1).encode())

    def __contains__(self, first: int) -> bool:
        """Test for the file of a part, which may be damaged."""
        return self._path(first).is_file()

    def load(self, first: int, batch: EvalBatch) -> PartMeasures | None:
        """Read the measures of a part; None if it was not finished.

        Args:
            first: Number of its first image, from 0.
            batch: Its images.

        Raises:
            UserError: If the part is of other images.
        """
        try:
            content: Any = torch.load(self._path(first), weights_only=True)
            images, measures = content["images"], content["measures"]
        except Exception:  # no such file, or one that is damaged in any of many ways: the part is measured again
            return None
        if images != fingerprint(batch):
            raise UserError(self._other("images"))
        return measures

    def save(self, first: int, batch: EvalBatch, measures: PartMeasures) -> None:
        """Write the measures of a part.

        Args:
            first: Number of its first image, from 0.
            batch: Its images.
            measures: Its measures.
        """
        content = io.BytesIO()
        torch.save({"images": fingerprint(batch), "measures": measures}, content)
        with whole_file(self._path(first), "part of judge") as file:
            file.write(content.getbuffer())

    def remove(self) -> None:
        """Remove the parts, and the folder if it holds nothing else."""
        for path in [*self.folder.glob("part_*.pt"), self.folder / SETTINGS]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _path(self, first: int) -> Path:
        return self.folder / f"part_{first + 1:06}.pt"

    def _other(self, names: str) -> str:
        return (
            f"{self.folder} holds an unfinished evaluation with other {names}: finish it with its own options, name "
            "another folder by --output, or delete this one"
        )


def stored_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of the evaluation whose parts are in a folder; empty if there is none."""
    try:
        found = json.loads((folder / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fingerprint(of: EvalBatch | nn.Module) -> str:
    """Hash of images with their labels and ground truth, or of a network's parameters and buffers."""
    if isinstance(of, nn.Module):
        tensors: dict[str, Tensor | None] = dict(of.state_dict())
    else:
        tensors = {"images": of.images, "labels": of.labels} | dict(of.ground_truth.regions if of.ground_truth else {})
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {None if tensor is None else (tensor.dtype, tuple(tensor.shape))}".encode())
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
