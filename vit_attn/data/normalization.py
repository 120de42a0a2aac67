"""Mean and deviation for normalisation: known ones by name, or those of the training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from jaxtyping import UInt8
from timm.data import constants
from torch import Tensor

from vit_attn.checkpoints.card import card_of
from vit_attn.checkpoints.header import read_header
from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.data.datasets.splits import DatasetInfo
from vit_attn.errors import UserError, did_you_mean

SAMPLE = 4096
"""Training images, at most, from which statistics are computed."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation by channel, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, channels: int) -> "Statistics":
        """The same for colour images or for grey ones."""
        if len(self.mean) == channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return Statistics((mean,) * channels, (std,) * channels)


KNOWN = {
    "imagenet": Statistics(constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "inception": Statistics(constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    "clip": Statistics(constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
}


def find_statistics(name: str, sources: Mapping[str, DatasetInfo]) -> Statistics:
    """Statistics that are known by a name.

    Args:
        name: ``imagenet``, ``inception`` or ``clip``; a data set; a network of timm's, for what it was pretrained with;
            or the path of a checkpoint or an export of ours.
        sources: Data sets by name.

    Raises:
        UserError: If there is nothing of that name.
    """
    if name in KNOWN:
        return KNOWN[name]
    measured = {each: source for each, source in sources.items() if source.mean and source.std}
    if name in measured:
        source = measured[name]
        return Statistics(source.mean or (), source.std or ())
    if name.endswith((".ckpt", ".safetensors")) or Path(name).is_file():
        return _of_file(Path(name))
    base = name.partition(".")[0]
    if timm.is_model(base) and (config := timm.get_pretrained_cfg(name, allow_unregistered=False)):
        return Statistics(tuple(config.mean), tuple(config.std))
    names = [*KNOWN, *measured]
    hint = did_you_mean(name, names) or did_you_mean(name, timm.list_models())
    raise UserError(
        f"normalize: no statistics are known as {name!r}{hint}; known are {', '.join(names)}, the networks of timm, "
        "and checkpoints and exports of ours"
    )


def _of_file(path: Path) -> Statistics:
    if not path.is_file():
        raise UserError(f"normalize: checkpoint not found: {path}")
    try:
        said = read_header(path) if path.suffix == ".safetensors" else card_of(read_checkpoint(path), path)
    except UserError as error:
        raise UserError(f"normalize: {error}") from error
    if said is None or not said.mean:
        raise UserError(f"normalize: {path} does not say what data it was trained on")
    return Statistics(said.mean, said.std)


def measure(images: UInt8[Tensor, "B C height width"]) -> Statistics:
    """Of all pixels of the images.

    >>> measure(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    Statistics(mean=(0.5,), std=(0.5,))
    """
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(dim=1)])
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.double) / 255
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3)  # of flat images there is none
    return Statistics(*(tuple(round(float(value), 4) for value in each) for each in (mean, std)))
