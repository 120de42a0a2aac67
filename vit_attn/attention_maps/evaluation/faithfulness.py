"""Faithfulness of maps: deletion, insertion and the pointing game, and content-free baseline maps.

Maps here have one number per patch, (B, P), patches row by row; a higher one claims to matter more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.checks import (
    check_images,
    check_logits,
    check_maps,
    check_order,
    check_region,
    class_targets,
    in_head,
    whole,
)
from vit_attn.attention_maps.evaluation.batch import Classes, Images, logits_by_batch, predicted_classes
from vit_attn.attention_maps.recording.token_layout import patches_to_pixels, token_layout

PatchMaps = Float[Tensor, "B P"]
Order = Int64[Tensor, "_ P"]
"""Patches by rank, the top-ranked first; a single row stands for all images."""


def order_of(maps: PatchMaps) -> Int64[Tensor, "B P"]:
    """Rank patches by their value, the highest first; of equal ones the one with the lower index."""
    check_maps(maps)
    return maps.argsort(dim=-1, descending=True, stable=True)


def centre_first_map(grid_size: tuple[int, int]) -> Float[Tensor, "1 P"]:
    """Content-free baseline map: minus the distance to the centre, where photographs have their subject."""
    rows, cols = (
        torch.arange(whole("rows and cols", size), dtype=torch.float32, device="cpu") - (size - 1) / 2
        for size in grid_size
    )
    return -(rows[:, None] ** 2 + cols[None] ** 2).sqrt().flatten()[None]


def random_maps(shape: tuple[int, int], seed: int, first: int = 0) -> PatchMaps:
    """Content-free baseline maps of random numbers; the global random state is not touched.

    Args:
        shape: Numbers of images and of patches.
        seed: Seed of the maps.
        first: Number of the first image, from 0; an image has the same map whichever others are asked for with it.
    """
    images, patches = (whole("images and patches", count) for count in shape)
    generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
    return torch.rand((first + images, patches), generator=generator, device="cpu", dtype=torch.float32)[first:]


@dataclass(frozen=True)
class Curve:
    """Probability of the target as patches are removed or added, the first point for none of them, the last for all."""

    probabilities: Float[Tensor, "B points"]

    @property
    def area(self) -> Float[Tensor, " B"]:
        """Area under the curve over the fraction of patches, in [0, 1], by the trapezoid rule."""
        return torch.trapezoid(self.probabilities, dim=-1) / (self.probabilities.shape[-1] - 1)


def deletion(
    net: nn.Module, images: Images, order: Order, target: Classes | None = None, steps: int = 16, batch: int = 128
) -> Curve:
    """Deletion: replace patches by the data set's mean in this order; the better the map, the lower the area.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images, of which zeros are the data set's mean.
        order: Patches by rank, the first one is replaced first.
        target: One class per image; by default the predicted class.
        steps: Points of the curve after the first; each replaces the nearest whole number of patches.
        batch: Images at a time.

    Raises:
        UserError: If the network does not take the images, if the order does not rank its patches, if a class does not
            exist, if there are no steps, or if the network gives NaN.

    References:
        Petsiuk 2018, "RISE", arXiv 1806.07421, section 3.3.
    """
    return _curve(net, images, order, target, steps, batch, lambda rank, count: rank >= count)


def insertion(
    net: nn.Module, images: Images, order: Order, target: Classes | None = None, steps: int = 16, batch: int = 128
) -> Curve:
    """Insertion: add patches to the data set's mean in this order; the better the map, the higher the area.

    Arguments, errors and reference are those of :func:`deletion`.
    """
    return _curve(net, images, order, target, steps, batch, lambda rank, count: rank < count)


def _curve(
    net: nn.Module,
    images: Images,
    order: Order,
    target: Classes | None,
    steps: int,
    batch: int,
    keep: Callable[[Tensor, int], Tensor],
) -> Curve:
    steps = whole("steps", steps)
    check_images(net, images)
    layout = token_layout(net, images)
    patches = layout.grid_size[0] * layout.grid_size[1]
    check_order(order, len(images), patches)
    rank = order.argsort(dim=-1).expand(len(images), -1).to(images.device)
    if target is None:
        target = predicted_classes(net, images, batch)
    else:
        target = class_targets(target, len(images), images.device)
    points = []
    for step in range(steps + 1):
        kept = keep(rank, round(step * patches / steps)).to(images.dtype)
        mask = patches_to_pixels(kept, layout, (images.shape[-2], images.shape[-1]), outside=1.0)
        probabilities = check_logits(logits_by_batch(net, images * mask, batch)).softmax(dim=-1)
        points.append(probabilities.gather(-1, in_head(target, probabilities.shape[-1])[:, None])[:, 0])
    return Curve(torch.stack(points, dim=-1))


def pointing(maps: PatchMaps, region: Bool[Tensor, "B P"]) -> Float[Tensor, " B"]:
    """Pointing game: 1 where the top-ranked patch is in the region, else 0; NaN for an image without the region.

    A random map scores the region's fraction of the patches.

    Raises:
        UserError: If the maps are not finite, or if the region is not a mask of their shape.

    References:
        Zhang 2016, "Top-down neural attention by excitation backprop", arXiv 1608.00507.
    """
    check_maps(maps)
    check_region(region, maps)
    region = region.to(maps.device)
    hits = region.gather(-1, maps.argmax(dim=-1, keepdim=True))[:, 0].float()
    return torch.where(region.any(dim=-1), hits, torch.nan)
