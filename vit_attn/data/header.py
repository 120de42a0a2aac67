"""What a file of ours says of its network, which is all that is needed to use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from vit_attn.data.card import card_of
from vit_attn.errors import UserError

MADE_FOR = ("num_classes", "img_size", "in_chans")
"""Options that a network has from the data it was made for."""


@dataclass(frozen=True)
class Header:
    """What is known of a network; ``export`` keeps it beside the weights, each field as JSON in the file's metadata.

    Args:
        architecture: Its name in timm's registry.
        options: With which ``timm.create_model`` makes it.
        class_names: Names of its classes, where they are known.
        mean: Mean of the training images by channel, of pixels in [0, 1]; empty where it is not known.
        std: Their standard deviation; empty where it is not known.
        img_size: Height and width of the images that it takes.
        crop_pct: Share of the image that is left by the crop around its centre.
    """

    architecture: str
    options: dict[str, Any]
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    img_size: tuple[int, int]
    crop_pct: float

    def metadata(self) -> dict[str, str]:
        """As the file keeps it."""
        return {name: json.dumps(value) for name, value in asdict(self).items()} | {"format": "pt"}


def read_header(path: Path) -> Header:
    """What a ``.safetensors`` file says of its network.

    Raises:
        UserError: If there is no such file, or if it says nothing, as one of another program.
    """
    if not path.is_file():
        raise UserError(f"weights not found: {path}")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            said = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
        fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        return Header(**fields)
    except Exception as error:  # a damaged file, or one of another program
        raise UserError(
            f"{path} does not say what network it is of, as a file of `vit-attn export` does: name the network with "
            "--model and the file with --weights"
        ) from error


def find_header(path: str | Path) -> Header | None:
    """What a checkpoint or an export of ours says of its network; nothing if this is no such file.

    Args:
        path: A file, of any name. One that cannot be read says nothing: that is told where its weights are read.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        if path.suffix == ".safetensors":
            return read_header(path)
        return _of_checkpoint(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception:  # a damaged or hostile file can fail in any way
        return None


def _of_checkpoint(checkpoint: dict[str, Any]) -> Header:
    stored, card = checkpoint["hyper_parameters"], card_of(checkpoint)
    made_for = {name: stored[name] for name in MADE_FOR}
    return Header(
        architecture=stored["arch"],
        options={**(stored.get("arch_options") or {}), **made_for},
        class_names=card.class_names if card else None,
        mean=card.mean if card else (),
        std=card.std if card else (),
        img_size=tuple(stored["img_size"]),
        crop_pct=card.crop if card else 1.0,
    )
