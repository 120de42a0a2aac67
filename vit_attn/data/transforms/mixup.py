"""Mixup and CutMix of a batch on its device, with a ratio of its own for every image.

References:
    mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vit_attn.data.transforms.erasing import Boxes, area_fractions, draw_boxes, keep_boxes
from vit_attn.data.transforms.packing import Array
from vit_attn.data.transforms.rng import BatchRNG

Images = Float[Tensor, "B C height width"]


class Mixing(NamedTuple):
    """Parameters of the mixing of a batch, a number for each image.

    Args:
        partners: Index of the image that each image is mixed with.
        weights: Weight of each image in a pixel outside its box, and 0 is its weight inside.
        ratios: Weight of each image's target.
        rest: Weight of its partner's target.
    """

    partners: Array
    weights: Array
    ratios: Array
    rest: Array


def draw_mixing(mixup: float, cutmix: float, size: tuple[int, int], rng: BatchRNG) -> tuple[Mixing, Boxes]:
    """Draw which images are mixed in which ratio, and the boxes of CutMix; those of mixup are empty.

    Args:
        mixup: Beta parameter of mixup, 0 for none; with CutMix too, each is used for half of the images.
        cutmix: Beta parameter of CutMix, 0 for none.
        size: Height and width of the images in pixels.
        rng: Random numbers of this step.
    """
    cut = rng.uniform() < np.float32((cutmix > 0) * (0.5 if mixup > 0 else 1.0))
    ratios = np.where(cut, rng.beta(cutmix or 1.0), rng.beta(mixup or 1.0))
    boxes = keep_boxes(draw_boxes(1 - ratios, size, rng), cut)
    ratios = np.where(cut, 1 - area_fractions(boxes, size), ratios)  # a box at the border is clipped
    weights = np.where(cut, np.float32(1), ratios)
    return Mixing(partners(rng.batch_size), weights, ratios, 1 - ratios), boxes


def mix(
    images: Images,
    labels: Int64[Tensor, " B"],
    num_classes: int,
    mixing: Mixing,
    boxes: Bool[Tensor, "B 1 height width"],
) -> tuple[Images, Float[Tensor, "B classes"]]:
    """Mix each image with another one by mixup or CutMix, and the targets in the same ratio.

    Args:
        images: Normalised images.
        labels: Class indices.
        num_classes: Number of classes.
        mixing: What :func:`draw_mixing` draws, on the device.
        boxes: Pixels of its boxes.
    """
    weights = mixing.weights[:, None, None, None].masked_fill(boxes, 0)
    mixed = weights * images + (1 - weights) * images.index_select(0, mixing.partners)
    targets = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    others = targets.index_select(0, mixing.partners)
    return mixed, mixing.ratios[:, None] * targets + mixing.rest[:, None] * others


def partners(count: int) -> Int64[np.ndarray, " B"]:
    """Index of the image that each image of a shuffled batch is mixed with: its neighbour, in pairs.

    Pairs are the same however many ranks share an even batch. The last three of an odd batch form a cycle.

    >>> partners(4).tolist(), partners(5).tolist()
    ([1, 0, 3, 2], [1, 0, 3, 4, 2])
    """
    other = np.arange(count) ^ 1
    if count % 2 and count > 1:
        other[-2:] = count - 1, count - 3
    elif count == 1:
        other[0] = 0
    return other
