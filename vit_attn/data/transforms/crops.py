"""Random crops and flips of a batch: of padded images by one gather, and resized ones."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.transforms.rng import BatchRNG

Pixels = UInt8[Tensor, "B C height width"]


def alternating_flips(addresses: Int64[Tensor, " B"], num_images: int, seed: int) -> Bool[np.ndarray, " B"]:
    """Choose the images to flip in this epoch: half of the data set, and the other half in the next epoch.

    Args:
        addresses: ``epoch * num_images + index`` of each image.
        num_images: Images of the data set.
        seed: Decides which half is flipped first.
    """
    epochs, indices = np.divmod(addresses.numpy(), num_images)
    return (_halves(num_images, seed)[indices] + epochs) % 2 == 1


@functools.lru_cache(maxsize=2)
def _halves(num_images: int, seed: int) -> Int64[np.ndarray, " images"]:
    return np.random.default_rng(seed).integers(0, 2, num_images)


def draw_crops_and_flips(
    shape: Sequence[int], padding: int, probability: float, rng: BatchRNG, flips: Bool[np.ndarray, " B"] | None = None
) -> Int64[np.ndarray, " B"]:
    """Draw a crop of each padded image, and which images are flipped: those in ``flips``, or at random.

    Args:
        shape: Shape of the batch.
        padding: Pixels of border around an image.
        probability: Of a flip.
        rng: Random numbers of this step.
        flips: Which images to flip.

    Returns:
        What :func:`crop_and_flip` takes: the first pixel of each crop in the memory of all padded images, which the
        flipped ones follow.
    """
    top = rng.integers(0, 2 * padding)
    flipped = rng.uniform() < np.float32(probability) if flips is None else flips
    left = rng.integers(0, 2 * padding)
    count, channels, height, width = shape
    row = width + 2 * padding
    image = channels * (height + 2 * padding) * row
    each = flipped * count + np.arange(count)
    return each * image + top * row + np.where(flipped, 2 * padding - left, left)


def crop_and_flip(images: Pixels, starts: Int64[Tensor, " B"], padding: int) -> Pixels:
    """Crop each padded image, and flip some images.

    Args:
        images: The images.
        starts: What :func:`draw_crops_and_flips` draws.
        padding: Pixels of black border around an image.
    """
    count, channels, height, width = images.shape
    both = images.new_zeros(2, count, channels, height + 2 * padding, width + 2 * padding)
    inner = both[..., padding : padding + height, padding : padding + width]
    inner[0].copy_(images)
    inner[1].copy_(images.flip(-1))
    # a crop is one run of memory, less what lies between its rows: so all crops are one gather of whole runs
    _, _, plane, row, _ = both.stride()
    length = (channels - 1) * plane + (height - 1) * row + width
    runs = both.as_strided((both.numel() - length + 1, length), (1, 1))
    return runs.index_select(0, starts).as_strided(images.shape, (length, plane, row, 1))


def random_resized_crops(
    images: Sequence[UInt8[Tensor, "C _ _"]], min_area: float, rng: BatchRNG, size: tuple[int, int]
) -> UInt8[Tensor, "B C height width"]:
    """Resize a random crop of each of several images of different sizes, as workers do with what they read.

    Args:
        images: Pixels.
        min_area: Smallest fraction of the area in a crop.
        rng: Random parameters of this step.
        size: Height and width of the result in pixels.
    """
    crops = draw_crops(np.array([each.shape[-2:] for each in images]), min_area, rng).astype(int).tolist()
    return torch.stack(
        [
            tv.resized_crop(image, *crop, size=list(size), antialias=True)
            for image, crop in zip(images, crops, strict=True)
        ]
    )


def draw_crops(
    shapes: Int64[np.ndarray, "B 2"], min_area: float, rng: BatchRNG, tries: int = 10
) -> Float32[np.ndarray, "B 4"]:
    """Draw top, left, height and width in pixels of a crop of each image, as torchvision's ``RandomResizedCrop`` does.

    Args:
        shapes: Height and width of each image.
        min_area: Smallest fraction of the area in a crop.
        rng: Random parameters of this step.
        tries: Crops that are drawn for each image; if none lies in the image, its centre is cropped.
    """
    height, width = shapes.T[..., None]
    areas = rng.local(rng.generator.uniform(min_area, 1.0, (rng.total, tries))) * height * width
    ratios = np.exp(rng.local(rng.generator.uniform(np.log(3 / 4), np.log(4 / 3), (rng.total, tries))))
    widths, heights = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    each, first, none = np.arange(len(shapes)), fits.argmax(axis=1), ~fits.any(axis=1)[:, None]
    largest = np.round(np.minimum(shapes, shapes[:, ::-1] * 4 / 3))
    sides = np.where(none, largest, np.stack([heights[each, first], widths[each, first]], axis=1))
    spare = shapes - sides
    corners = np.floor(rng.local(rng.generator.uniform(0, 1, (rng.total, 2))) * (spare + 1))
    corners = np.where(none, spare // 2, corners)
    return np.concatenate([corners, sides], axis=1).astype(np.float32)
