"""Random erasing and cutout: boxes of an image set to the mean."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from vit_attn.data.transforms.rng import BatchRNG

Images = Float[Tensor, "B C height width"]


def erase(images: Images, probability: float, rng: BatchRNG) -> Images:
    """Set a random box, up to a third of the area, to 0, the mean of normalised images, in some of the images."""
    boxes = random_boxes(rng.uniform(0.02, 1 / 3), (images.shape[-2], images.shape[-1]), rng)
    chosen = (rng.uniform() < probability)[:, None, None, None]
    return images.masked_fill(boxes & chosen, 0.0)


def cutout(images: Images, side: int, rng: BatchRNG) -> Images:
    """Set a square around a random pixel of each image to 0, the mean of normalised images; the border clips it."""
    sides = []
    for length in images.shape[-2:]:
        start = rng.integers(0, length - 1) - side // 2
        sides.append(_between(start, start + side, length))
    return images.masked_fill(_boxes(*sides), 0.0)


def random_boxes(areas: Float[Tensor, " B"], size: tuple[int, int], rng: BatchRNG) -> Bool[Tensor, "B 1 height width"]:
    """Draw boxes of the image's aspect ratio around random centres, clipped at the border.

    Args:
        areas: Area of each box as a fraction of the image's, before clipping.
        size: Height and width of the images in pixels.
        rng: Random parameters of this step.
    """
    height, width = size
    half = areas.sqrt() / 2
    sides = []
    for length in (height, width):
        centre = rng.uniform(0, length)
        sides.append(_between((centre - half * length).round(), (centre + half * length).round(), length))
    return _boxes(*sides)


def _between(start: Shaped[Tensor, " B"], stop: Shaped[Tensor, " B"], length: int) -> Bool[Tensor, "B length"]:
    position = torch.arange(length, device=start.device)
    return (position >= start[:, None]) & (position < stop[:, None])


def _boxes(rows: Bool[Tensor, "B height"], cols: Bool[Tensor, "B width"]) -> Bool[Tensor, "B 1 height width"]:
    return (rows[:, :, None] & cols[:, None, :])[:, None]
