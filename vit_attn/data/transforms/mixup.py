"""Mixup and CutMix of a batch on its device, with a ratio of its own for every image.

References:
    mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from vit_attn.data.transforms.erasing import random_boxes
from vit_attn.data.transforms.rng import BatchRNG

Images = Float[Tensor, "B C height width"]


def mix(
    images: Images, labels: Int64[Tensor, " B"], num_classes: int, mixup: float, cutmix: float, rng: BatchRNG
) -> tuple[Images, Float[Tensor, "B classes"]]:
    """Mix each image with another one by mixup or CutMix, and the targets in the same ratio.

    Args:
        images: Normalised images.
        labels: Class indices.
        num_classes: Number of classes.
        mixup: Beta parameter of mixup, 0 for none; with CutMix too, each is used for half of the images.
        cutmix: Beta parameter of CutMix, 0 for none.
        rng: Random parameters of this step.
    """
    targets = F.one_hot(labels, num_classes).float()
    other = partners(len(images), images.device)
    cut = rng.uniform() < (cutmix > 0) * (0.5 if mixup > 0 else 1.0)
    ratio = torch.where(cut, rng.beta(cutmix or 1.0), rng.beta(mixup or 1.0))
    boxes = random_boxes(1 - ratio, (images.shape[-2], images.shape[-1]), rng)
    ratio = torch.where(cut, 1 - boxes.float().mean(dim=(1, 2, 3)), ratio)  # a box at the border is clipped
    weights = torch.where(cut[:, None, None, None], (~boxes).float(), ratio[:, None, None, None]).to(images.dtype)
    mixed = weights * images + (1 - weights) * images[other]
    return mixed, ratio[:, None] * targets + (1 - ratio[:, None]) * targets[other]


def partners(count: int, device: torch.device) -> Int64[Tensor, " B"]:
    """Index of the image that each image of a shuffled batch is mixed with: its neighbour, in pairs.

    Pairs are the same however many ranks share an even batch. The last three of an odd batch form a cycle.

    >>> partners(4, torch.device("cpu")).tolist(), partners(5, torch.device("cpu")).tolist()
    ([1, 0, 3, 2], [1, 0, 3, 4, 2])
    """
    other = torch.arange(count, device=device) ^ 1
    if count % 2 and count > 1:
        other[-2] = count - 1
        other[-1] = count - 3
    elif count == 1:
        other[0] = 0
    return other
