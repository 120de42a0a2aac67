"""Decoding of images in their original sizes, for random crops that reach beyond the centre."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.datasets.image_list import DecodedImageList, FullSizeImage
from vit_attn.data.datasets.splits import Split
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.decoding import readable_indices
from vit_attn.data.images.image_file import OVERSAMPLING, fit_picture
from vit_attn.errors import UserError


def decode_full_size(
    split: Split, name: str, size: tuple[int, int], channels: int, min_side: int, skip_corrupt: bool
) -> Split:
    """Decode a split into one tensor of centre crops, and into full-size images unless all have the input size.

    Args:
        split: Images that are not decoded yet.
        name: Name of the split for messages.
        size: Height and width in pixels that the network takes.
        channels: 3 for colour, 1 for grey.
        min_side: Shorter side, in pixels, of a full-size image that has enough detail.
        skip_corrupt: Whether corrupt files are left out and logged, instead of ending the run.

    Raises:
        UserError: If a file is corrupt and is not to be left out.
    """
    pictures, images = split.to_read(), torch.empty(len(split), channels, *size, dtype=torch.uint8)
    pixels: dict[int, FullSizeImage] = {}

    def read(index: int) -> str | None:
        try:
            picture = pictures.read(index, channels, min_side)
        except UserError as error:
            return str(error)
        pixels[index] = tv.pil_to_tensor(picture)
        if min(picture.size) >= 2 * OVERSAMPLING * max(size):  # the centre alone is decoded from a smaller JPEG
            picture = pictures.read(index, channels, OVERSAMPLING * max(size))
        images[index] = _centre_crop(picture, size)
        return None

    kept = readable_indices(split, name, read, "decoded", skip_corrupt)
    originals = [pixels.get(index, images[index]) for index in range(len(split))]
    split = replace(split, images=images, full_size=_unless_alike(originals, size))
    return split if kept is None else split.take(kept)


def decode_full_size_stream(stream: Stream, channels: int, size: tuple[int, int], skip_corrupt: bool) -> Split:
    """Decode a stream as :func:`decode_full_size` decodes files.

    Args:
        stream: The split.
        channels: 3 for colour, 1 for grey.
        size: Height and width in pixels that the network takes.
        skip_corrupt: Whether corrupt images are left out.

    Raises:
        UserError: If an image is corrupt and is not to be left out.
    """
    images, originals, labels = [], [], []
    for picture, label in stream.pictures(stream.count, channels, skip_corrupt):
        images.append(_centre_crop(picture, size))
        originals.append(tv.pil_to_tensor(picture))
        labels.append(label)
    return Split(torch.stack(images), torch.tensor(labels), full_size=_unless_alike(originals, size))


def _centre_crop(picture: Image.Image, size: tuple[int, int]) -> UInt8[Tensor, "C height width"]:
    return torch.from_numpy(fit_picture(picture, size)).permute(2, 0, 1)


def _unless_alike(pixels: Sequence[FullSizeImage], size: tuple[int, int]) -> DecodedImageList | None:
    """The full-size images, or None if all have the network's input size, so that the centre crops are the same."""
    return None if all(tuple(each.shape[-2:]) == size for each in pixels) else DecodedImageList(pixels)
