"""Mean and standard deviation for normalisation: known ones by name, or those of the training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from jaxtyping import UInt8
from timm.data import constants
from torch import Tensor

from vit_attn.checkpoints.io import find_card, read_card, read_checkpoint
from vit_attn.checkpoints.model_card import ModelCard, card_from_state
from vit_attn.checkpoints.paths import describe_missing, looks_like_path, weights_file
from vit_attn.data.datasets.splits import DatasetInfo
from vit_attn.errors import UserError, did_you_mean

SAMPLE = 4096
"""Largest number of training images from which statistics are computed."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation by channel, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, channels: int) -> "Statistics":
        """Statistics for grey or colour images: the mean over the channels, repeated, if their number differs."""
        if len(self.mean) == channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return Statistics((mean,) * channels, (std,) * channels)


KNOWN = {
    "imagenet": Statistics(constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "inception": Statistics(constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    "clip": Statistics(constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
}


def find_statistics(name: str, datasets: Mapping[str, DatasetInfo]) -> Statistics:
    """Look up known statistics.

    Args:
        name: ``imagenet``, ``inception`` or ``clip``; a data set; a network of timm, for those of its pretraining; or
            the path of a checkpoint or an export of ours.
        datasets: Data sets by name.

    Raises:
        UserError: If the name is unknown, or if the file does not give any.
    """
    if name in KNOWN:
        return KNOWN[name]
    known = {each: Statistics(info.mean, info.std) for each, info in datasets.items() if info.mean and info.std}
    if name in known:
        return known[name]
    try:
        path = weights_file(name)
        card = _card_of_file(path or Path(name)) if path or _is_path(name) else find_card(name)
    except UserError as error:
        raise UserError(f"normalize: {error}") from error
    if card is None:
        names = [*KNOWN, *known]
        hint = did_you_mean(name, names) or did_you_mean(name, timm.list_models())
        raise UserError(
            f"normalize: no statistics are known as {name!r}{hint}; known are {', '.join(names)}, the networks of "
            "timm, and checkpoints and exports of ours"
        )
    return Statistics(card.mean, card.std)


def _is_path(name: str) -> bool:
    return looks_like_path(name) or Path(name).is_dir()


def _card_of_file(path: Path) -> ModelCard:
    """Model card of a file that has a mean and standard deviation; the network of a checkpoint does not matter here."""
    if not path.is_file():
        raise UserError(describe_missing(path))
    if path.suffix == ".safetensors":
        card = read_card(path)
    else:
        card = card_from_state(read_checkpoint(path), path)
    if card is None or not card.mean:
        raise UserError(f"{path} does not say what data it was trained on")
    return card


def measure(images: UInt8[Tensor, "B C height width"]) -> Statistics:
    """Compute the statistics of all pixels of the images.

    Args:
        images: Pixels before normalisation.

    >>> measure(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    Statistics(mean=(0.5,), std=(0.5,))
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(dim=1)])
    frequencies = counts.double() / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.double) / 255
    mean = frequencies @ values
    std = (frequencies @ values.square() - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3)  # images of one shade: 0
    return Statistics(*(tuple(round(float(value), 4) for value in each) for each in (mean, std)))
