"""Augmentation of a batch on its device, with random parameters of its own for every image.

Parameters are drawn for the global batch of all ranks from (seed, step) and sliced by rank, so they depend neither on
earlier random numbers nor on the number of workers or ranks.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.erasing import cutout, erase
from vit_attn.data.transforms.ops import resized_crop
from vit_attn.data.transforms.policies import colour_jitter, rand_augment, trivial_augment
from vit_attn.data.transforms.rng import BatchRNG, to_device

Images = Float[Tensor, "B C height width"]


def augment_batch(
    images: UInt8[Tensor, "B C height width"],
    settings: Augment,
    normalize: Callable[[Tensor], Images],
    rng: BatchRNG,
    flips: Bool[Tensor, " B"] | None = None,
) -> Images:
    """Augment and normalise a batch; all but mixup and CutMix.

    Args:
        images: Pixels, on any device.
        settings: The operations.
        normalize: From pixels to what the network takes; erased pixels get 0 after it, the mean.
        rng: Random parameters of this step.
        flips: Which images to flip, instead of random ones.
    """
    if settings.random_resized_crop:
        images = resized_crop(images, random_crops(images, settings.random_resized_crop, rng))
    if settings.crop_padding or settings.flip or flips is not None:
        images = crop_and_flip(images, settings.crop_padding or 0, settings.flip or 0.0, rng, flips)
    if settings.colour_jitter:
        images = colour_jitter(images, settings.colour_jitter, rng)
    if settings.rand_augment:
        images = rand_augment(images, settings.rand_augment, rng)
    if settings.trivial_augment:
        images = trivial_augment(images, settings.trivial_augment, rng)
    result = normalize(images)
    if settings.cutout:
        result = cutout(result, settings.cutout, rng)
    return erase(result, settings.erase, rng) if settings.erase else result


def alternating_flips(addresses: Int64[Tensor, " B"], num_images: int, seed: int) -> Bool[Tensor, " B"]:
    """Choose the images to flip in this epoch: half of the data set, and the other half in the next epoch.

    Args:
        addresses: ``epoch * num_images + index`` of each image.
        num_images: Images of the data set.
        seed: Decides which half is flipped first.
    """
    return (_halves(num_images, seed)[addresses % num_images] + addresses // num_images) % 2 == 1


@functools.lru_cache(maxsize=2)
def _halves(num_images: int, seed: int) -> Int64[Tensor, " images"]:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, num_images))


def crop_and_flip(
    images: UInt8[Tensor, "B C height width"],
    padding: int,
    probability: float,
    rng: BatchRNG,
    flips: Bool[Tensor, " B"] | None = None,
) -> UInt8[Tensor, "B C height width"]:
    """Take a random crop of each padded image, and flip some images: those in ``flips``, or at random."""
    count, channels, height, width = images.shape
    top = rng.integers(0, 2 * padding)
    flipped = rng.uniform() < probability if flips is None else flips
    left = rng.integers(0, 2 * padding)
    both = images.new_zeros(2, count, channels, height + 2 * padding, width + 2 * padding)
    inner = both[..., padding : padding + height, padding : padding + width]
    inner[0].copy_(images)
    inner[1].copy_(images.flip(-1))
    # a crop is one run of memory, less what lies between its rows: so all crops are one gather of whole runs
    _, image, plane, row, _ = both.stride()
    length = (channels - 1) * plane + (height - 1) * row + width
    runs = both.as_strided((both.numel() - length + 1, length), (1, 1))
    each = torch.arange(count, device=images.device)
    starts = (flipped * count + each) * image + top * row + torch.where(flipped, 2 * padding - left, left)
    return runs.index_select(0, starts).as_strided(images.shape, (length, plane, row, 1))


def random_crops(images: UInt8[Tensor, "B C height width"], min_area: float, rng: BatchRNG) -> Float[Tensor, "B 4"]:
    """Draw a crop, as :func:`draw_crops` does, of each image of a batch of one size."""
    return to_device(draw_crops(np.tile(images.shape[-2:], (len(images), 1)), min_area, rng), images.device)


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
