"""What a file of ours says of its network, which is all that is needed to use it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vit_attn.checkpoints.card import BEFORE, card_of, check_bits, check_statistics
from vit_attn.checkpoints.contents import hyperparameters_of, is_ours, is_size
from vit_attn.checkpoints.io import read_checkpoint, read_safetensors
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
        bits: Those that grey pictures of more than 8 use; None where the training images had none.
    """

    architecture: str
    options: dict[str, Any]
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    img_size: tuple[int, int]
    crop_pct: float
    bits: int | None = None

    def metadata(self) -> dict[str, str]:
        """As the file keeps it."""
        return {name: json.dumps(value) for name, value in asdict(self).items()} | {"format": "pt"}


def read_header(path: Path) -> Header:
    """What a ``.safetensors`` file says of its network.

    Raises:
        UserError: If there is no such file, or if it says nothing, as one of another program.
    """
    if not path.exists():
        raise UserError(f"weights not found: {path}")
    metadata, _ = read_safetensors(path)
    try:
        said = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
    except ValueError as error:
        raise UserError(_of_another_program(path)) from error
    said.setdefault("bits", BEFORE)
    if said.keys() != {each.name for each in fields(Header)}:
        raise UserError(_of_another_program(path))
    found: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    check_statistics(found["mean"], found["std"], f"{path}: its header")
    check_bits(found["bits"], f"{path}: its header")
    kinds = isinstance(found["architecture"], str) and isinstance(found["options"], dict)
    if not (kinds and is_size(found["img_size"])):
        raise UserError(f"{path}: its header is damaged: architecture, options or img_size is of another kind")
    options: dict[str, Any] = found["options"]
    found["options"] = {
        name: tuple(value) if name == "img_size" and is_size(value) else value for name, value in options.items()
    }
    return Header(**found)


def _of_another_program(path: Path) -> str:
    return (
        f"{path} is not a file of `vit-attn export`, so it does not say what network it is of: name the network with "
        "--model and the file with --weights"
    )


def find_header(path: str | Path) -> Header | None:
    """What a checkpoint or an export of ours says of its network; nothing if this is no such file.

    Args:
        path: A file, of any name, or what is none.

    Raises:
        UserError: If the file is damaged, or if it is one of ours that does not hold what it must.
    """
    path = Path(path)
    if not path.is_file():
        return None
    if path.suffix == ".safetensors":
        return read_header(path) if "architecture" in read_safetensors(path)[0] else None
    checkpoint = read_checkpoint(path)
    return header_of(checkpoint, path) if is_ours(checkpoint) else None


def header_of(checkpoint: Mapping[str, Any], path: Path) -> Header:
    """What a checkpoint of ours says of its network.

    Raises:
        UserError: If it does not hold what it must, or if its network and its data disagree.
    """
    stored, card = hyperparameters_of(checkpoint, path), card_of(checkpoint, path)
    size, channels = tuple(stored["img_size"]), stored["in_chans"]
    if card is not None and tuple(card.img_size) != size:
        raise UserError(
            f"{path}: its network takes images of {_by(size)} pixels, but its data has {_by(card.img_size)}"
        )
    if card is not None and len(card.mean) != channels:
        raise UserError(
            f"{path}: its network takes images of {channels} channels, but its data has mean and deviation of "
            f"{len(card.mean)}"
        )
    return Header(
        architecture=stored["arch"],
        options={**(stored.get("arch_options") or {}), **{name: stored[name] for name in MADE_FOR}},
        class_names=card.class_names if card else None,
        mean=card.mean if card else (),
        std=card.std if card else (),
        img_size=size,
        crop_pct=card.crop if card else 1.0,
        bits=card.bits if card else None,
    )


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
