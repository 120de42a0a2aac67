"""Whole pictures in memory, of which training takes random parts: their centres would not do for that."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.datasets.splits import DecodedImageList, Split, Whole
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.decoding import SPARE, intact
from vit_attn.data.images.image_file import fit_picture
from vit_attn.data.loading.device import DeviceDataset
from vit_attn.data.transforms.augment import crops_of
from vit_attn.data.transforms.rng import BatchRNG
from vit_attn.errors import UserError

SEEN = 16
"""Images of a stream by which the size of all is estimated."""


class DeviceImageList:
    """Whole pictures on a device, moved there once.

    Args:
        pictures: In memory.
        labels: Class indices.
        device: Where they go.
    """

    def __init__(self, pictures: DecodedImageList, labels: Int64[Tensor, " B"], device: torch.device | str) -> None:
        self.pixels, self.labels = [each.to(device) for each in pictures.pixels], labels.to(device)

    def gather(self, addresses: Int64[Tensor, " B"]) -> tuple[list[Whole], Int64[Tensor, " B"]]:
        """The pictures and labels of a batch; its ``addresses`` are on the host."""
        indices = addresses % len(self.pixels)
        return [self.pixels[index] for index in indices.tolist()], self.labels[indices.to(self.labels.device)]


def resident(split: Split, device: torch.device | str) -> DeviceDataset | DeviceImageList:
    """A decoded split on a device."""
    if split.whole is not None:
        return DeviceImageList(split.whole, split.labels, device)
    return DeviceDataset(split.decoded(), split.labels, device)


def random_parts(
    pictures: Sequence[Whole], least: float, draws: BatchRNG, size: tuple[int, int]
) -> UInt8[Tensor, "B C height width"]:
    """A random part of each picture, resized, as workers take it of the pictures that they read.

    Args:
        pictures: Of any sizes.
        least: Least share of the area.
        draws: Random parameters of this step.
        size: Height and width of the result in pixels.
    """
    boxes = crops_of(np.array([each.shape[-2:] for each in pictures]), least, draws).astype(int).tolist()
    return torch.stack(
        [
            tv.resized_crop(picture, *box, size=list(size), antialias=True)
            for picture, box in zip(pictures, boxes, strict=True)
        ]
    )


def whole_bytes(split: Split, channels: int, least: int, enough: float) -> float:
    """Bytes of the whole pictures by their headers; an estimate for a stream, and where they are more than ``enough``.

    Args:
        split: Pictures that are still to be read.
        channels: 3 for colour, 1 for grey.
        least: Shorter side, in pixels, that is enough.
        enough: Bytes after which no more headers are read.
    """
    total, seen = 0, 0
    for height, width in _shapes(split, channels, least):
        total, seen = total + channels * height * width, seen + 1
        if total > enough:
            break
    return total / max(1, seen) * len(split)


def _shapes(split: Split, channels: int, least: int) -> Iterator[tuple[int, int]]:
    """Height and width of each picture, or of a stream's first."""
    if split.stream is not None:
        for picture, _ in split.stream.pictures(SEEN, channels, skip_damaged=True):
            yield picture.height, picture.width
        return
    pictures = split.to_read()
    for index in range(len(pictures)):
        with contextlib.suppress(Exception):  # damaged files fail in many ways, and are left to those who decode them
            yield pictures.size(index, least)


def decode_whole(
    split: Split, name: str, size: tuple[int, int], channels: int, least: int, skip_damaged: bool
) -> Split:
    """The split in one tensor, and with its whole pictures where not all have the network's size.

    Args:
        split: Pictures that are still to be read.
        name: What messages call the split.
        size: Height and width in pixels that the network takes.
        channels: 3 for colour, 1 for grey.
        least: Shorter side, in pixels, that is enough.
        skip_damaged: Whether what cannot be read is left out, and said, instead of ending the run.

    Raises:
        UserError: If a picture cannot be read and is not to be left out.
    """
    pictures, images = split.to_read(), torch.empty(len(split), channels, *size, dtype=torch.uint8)
    pixels: dict[int, Whole] = {}

    def read(index: int) -> str | None:
        try:
            picture = pictures.read(index, channels, least)
        except UserError as error:
            return str(error)
        pixels[index] = tv.pil_to_tensor(picture)
        if min(picture.size) >= 2 * SPARE * max(size):  # a JPEG is decoded smaller where its centre alone is wanted
            picture = pictures.read(index, channels, SPARE * max(size))
        images[index] = _centre(picture, size)
        return None

    kept = intact(split, name, read, "decoded", skip_damaged)
    wholes = [pixels.get(index, images[index]) for index in range(len(split))]
    split = replace(split, images=images, whole=_unlike(wholes, size))
    return split if kept is None else split.take(kept)


def read_whole_stream(stream: Stream, channels: int, size: tuple[int, int], skip_damaged: bool) -> Split:
    """All images of a stream in memory, as :func:`decode_whole` has those of files.

    Args:
        stream: The split.
        channels: 3 for colour, 1 for grey.
        size: Height and width in pixels that the network takes.
        skip_damaged: Whether what cannot be read is left out.

    Raises:
        UserError: If an image cannot be read and is not to be left out.
    """
    images, wholes, labels = [], [], []
    for picture, label in stream.pictures(stream.count, channels, skip_damaged):
        images.append(_centre(picture, size))
        wholes.append(tv.pil_to_tensor(picture))
        labels.append(label)
    return Split(torch.stack(images), torch.tensor(labels), whole=_unlike(wholes, size))


def _centre(picture: Image.Image, size: tuple[int, int]) -> UInt8[Tensor, "C height width"]:
    return torch.from_numpy(fit_picture(picture, size)).permute(2, 0, 1)


def _unlike(pixels: Sequence[Whole], size: tuple[int, int]) -> DecodedImageList | None:
    """The pictures, unless all of them have the network's size: the one tensor of them would do then."""
    return None if all(tuple(each.shape[-2:]) == size for each in pixels) else DecodedImageList(pixels)
