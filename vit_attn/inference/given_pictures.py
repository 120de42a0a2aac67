"""Pictures from what a Python session has: files, PIL images, arrays of pixels, normalised tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.data.images.fits import SeenPicture
from vit_attn.data.images.image_file import as_picture, read_picture
from vit_attn.data_protocol import GroundTruth
from vit_attn.errors import UserError
from vit_attn.inference.images import seen_picture, to_batch
from vit_attn.inference.network import TrainedNetwork

KINDS = (
    "a file, a PIL image, uint8 pixels (height, width, 3), a normalised tensor (3, height, width), or a list of these"
)


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size, without labels: a :class:`~vit_attn.data_protocol.ProbeImages`.

    Args:
        images: Pixels before normalisation, as the page shows them.
        normalized: The same, as the network takes them.
        names: Name of each.
        note: What the page must say of them.
    """

    images: UInt8[Tensor, "B C height width"]
    normalized: Float[Tensor, "B C height width"]
    names: list[str]
    note: str = ""

    @property
    def labels(self) -> Int64[Tensor, " B"]:
        """-1 for each: unknown."""
        return torch.full((len(self.images),), -1)

    @property
    def ground_truth(self) -> Sequence[GroundTruth] | None:
        """No patches are known to matter."""
        return None

    def select(self, indices: Sequence[int]) -> "Pictures":
        """Select some of the pictures."""
        chosen = list(indices)
        return Pictures(self.images[chosen], self.normalized[chosen], [self.names[i] for i in chosen], self.note)


def joined(parts: Sequence[Pictures]) -> Pictures:
    """Join pictures of one size.

    Raises:
        UserError: If they are of several.
    """
    if len({part.images.shape[1:] for part in parts}) > 1:
        raise UserError("a page has one grid of patches, and these pictures are seen in several shapes: add --fit=crop")
    images, normalized = (torch.cat(each) for each in ([p.images for p in parts], [p.normalized for p in parts]))
    return Pictures(images, normalized, [name for part in parts for name in part.names], parts[0].note)


def pictures_of(network: TrainedNetwork, seen: Sequence[SeenPicture], names: Sequence[str]) -> Pictures:
    """Normalise pictures as the network sees them, all of one shape.

    Args:
        network: The network, on its device.
        seen: The pictures.
        names: Name of each.
    """
    parameter = next(network.net.parameters())
    images = torch.from_numpy(np.stack([each.pixels for each in seen])).permute(0, 3, 1, 2).contiguous()
    return Pictures(images, to_batch(seen, network, parameter.device).to(parameter.dtype), list(names))


def given_pictures(network: TrainedNetwork, given: Any, fit: str = "auto") -> Pictures:
    """Make the pictures of a page from what a person passed.

    Args:
        network: The network, on its device.
        given: One or more pictures, each as ``KINDS`` lists; a normalised tensor goes into the network as it is.
        fit: How others become the network's input, one of ``FITS``.

    Raises:
        UserError: If a picture is of another kind, cannot be read, or differs in size from the others.
    """
    found: list[tuple[np.ndarray, Tensor, str]] = []
    for item in one_by_one(given):
        found.append(_picture(network, item, f"picture {len(found) + 1}", fit))
    if not found:
        raise UserError(f"no picture was given: give {KINDS}")
    if len(sizes := {tuple(normalized.shape) for _, normalized, _ in found}) > 1:
        shapes = ", ".join(map(str, sorted(sizes)))
        raise UserError(f"pictures of one page must be of one size, got {shapes}: fit='crop' makes them so")
    images = torch.from_numpy(np.stack([pixels for pixels, *_ in found])).permute(0, 3, 1, 2).contiguous()
    normalized = torch.stack([each for _, each, _ in found])
    return Pictures(images, normalized, [name for *_, name in found], _note(network.card, normalized))


def one_by_one(given: Any) -> list[Any]:
    """List the pictures: those of a list, and of a batch."""
    if isinstance(given, list | tuple):
        return [each for item in given for each in one_by_one(item)]
    return list(given) if is_several(given) else [given]


def is_several(given: Any) -> bool:
    """Tell a list or a batch of pictures from one picture."""
    return isinstance(given, list | tuple) or (isinstance(given, np.ndarray | Tensor) and given.ndim == 4)


def _picture(network: TrainedNetwork, item: Any, name: str, fit: str) -> tuple[np.ndarray, Tensor, str]:
    """Return pixels, normalised tensor and name of a picture."""
    parameter, card = next(network.net.parameters()), network.card
    if isinstance(item, Tensor) and item.is_floating_point():
        return _unnormalized(item, card), item.detach().to(parameter.device, parameter.dtype), name
    if isinstance(item, str | Path):
        picture, name = read_picture(item, card.in_chans, card.bits), Path(item).name
    else:
        picture = _opened(item, card.in_chans, name)
        name = Path(getattr(item, "filename", "") or name).name
    seen = seen_picture(picture, network, fit)
    return seen.pixels, to_batch([seen], network, parameter.device)[0].to(parameter.dtype), name


def _opened(item: Any, channels: int, name: str) -> Image.Image:
    """Return a PIL image, an array or a tensor of pixels as a picture."""
    if isinstance(item, Image.Image):
        return as_picture(item.copy, channels, name)  # a copy: reading closes it
    if isinstance(item, Tensor) and item.ndim == 3:
        item = item.permute(1, 2, 0).cpu().numpy()
    if not isinstance(item, np.ndarray):
        raise UserError(f"{name} must be {KINDS}, got {type(item).__name__}")
    if item.ndim == 3 and item.shape[2] == 1:
        item = item[..., 0]
    if item.dtype != np.uint8 or not (item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (3, 4))) or not item.size:
        raise UserError(f"{name} must be uint8 pixels (height, width, 3), got {item.dtype} {item.shape}")
    pixels = np.ascontiguousarray(item)
    return as_picture(lambda: Image.fromarray(pixels), channels, name)


def _unnormalized(item: Tensor, card: ModelCard) -> UInt8[np.ndarray, "height width channels"]:
    """Return the pixels of a normalised tensor; those outside of [0, 1] are clipped."""
    if item.ndim != 3 or len(item) != card.in_chans or not item.numel():
        raise UserError(f"a tensor must be ({card.in_chans}, height, width), got {tuple(item.shape)}")
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (card.mean, card.std))
    pixels = (item.detach().cpu().float() * std + mean).nan_to_num()
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _note(card: ModelCard, normalized: Float[Tensor, "B C height width"]) -> str:
    """Say how many pixels are of no colour, which another normalisation than the network's brings about."""
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (card.mean, card.std))
    pixels = normalized.cpu().float() * std + mean
    outside = ((pixels < -0.01) | (pixels > 1.01)).float().mean().item()
    if outside <= 0.01:
        return ""
    return f"{outside:.0%} of the pixels lie outside [0, 1] by this mean and std, and are clipped in what is shown."
