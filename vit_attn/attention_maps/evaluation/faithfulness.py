"""Is a map true? Each measure asks the network itself what a map claims, and stands beside the same from no map.

Maps here are one number a patch, (B, P), patches row by row; a higher one claims to matter more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.checks import (
    call_network,
    check_images,
    check_logits,
    check_maps,
    check_order,
    class_targets,
    in_head,
    indices,
    whole,
)
from vit_attn.attention_maps.recording.knockout import knockout, token_mask
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.token_layout import patches_to_pixels, token_layout
from vit_attn.errors import UserError

Images = Float[Tensor, "B C height width"]
Patches = Float[Tensor, "B P"]
Order = Int64[Tensor, "_ P"]
"""Patches, the first one first; a single row stands for all images."""
Classes = Int64[Tensor, " B"]


def order_of(patches: Patches) -> Int64[Tensor, "B P"]:
    """The highest patch first; of equal ones the one with the lower number."""
    check_maps(patches)
    return patches.argsort(dim=-1, descending=True, stable=True)


def centre_first(grid_size: tuple[int, int]) -> Float[Tensor, "1 P"]:
    """A map that looks at no image: minus the distance to the middle, since photographs have their subject there."""
    rows, cols = (
        torch.arange(whole("rows and cols", size), dtype=torch.float32, device="cpu") - (size - 1) / 2
        for size in grid_size
    )
    return -(rows[:, None] ** 2 + cols[None] ** 2).sqrt().flatten()[None]


def random_patches(shape: tuple[int, int], seed: int) -> Patches:
    """A map that looks at nothing at all; the global random state is not touched."""
    size = [whole("images and patches", each) for each in shape]
    generator = torch.Generator().manual_seed(whole("seed", seed, least=0))
    return torch.rand(size, generator=generator, device="cpu", dtype=torch.float32)


@dataclass(frozen=True)
class Curve:
    """The target's probability while patches go or come, first for none of them, last for all."""

    probabilities: Float[Tensor, "B points"]

    @property
    def area(self) -> Float[Tensor, " B"]:
        """Mean over the share of patches, from 0 to 1, by the trapezoid rule."""
        return torch.trapezoid(self.probabilities, dim=-1) / (self.probabilities.shape[-1] - 1)


def deletion(
    net: nn.Module, images: Images, order: Order, target: Classes | None = None, steps: int = 16, batch: int = 128
) -> Curve:
    """Patches are replaced by the mean of the data set, in this order: the better the map, the lower the area.

    Args:
        net: A classifier in evaluation.
        images: Normalised images, of which zeros are the mean over the data set.
        order: Which patch goes first.
        target: One class an image; by default the class that the network names.
        steps: Points of the curve after the first; the nearest whole number of patches has gone at each.
        batch: Images at a time.

    Raises:
        UserError: If the images are none of this network's, if the order is not one of its patches, if a class does not
            exist, if there are no steps, or if the network gives NaN.

    References:
        Petsiuk 2018, "RISE", arXiv 1806.07421, section 3.3.
    """
    return _curve(net, images, order, target, steps, batch, lambda rank, count: rank >= count)


def insertion(
    net: nn.Module, images: Images, order: Order, target: Classes | None = None, steps: int = 16, batch: int = 128
) -> Curve:
    """Patches come back into the mean of the data set, in this order: the better the map, the higher the area.

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
    rank = order.argsort(dim=-1).expand(len(images), -1).to(images.device)  # the place of each patch in the order
    chosen = None if target is None else class_targets(target, len(images), images.device)
    chosen = predicted(net, images, batch) if chosen is None else chosen
    points = []
    for step in range(steps + 1):
        kept = keep(rank, round(step * patches / steps)).to(images.dtype)
        mask = patches_to_pixels(kept, layout, (images.shape[-2], images.shape[-1]), outside=1.0)
        probabilities = check_logits(logits_by_batch(net, images * mask, batch)).softmax(dim=-1)
        points.append(probabilities.gather(-1, in_head(chosen, probabilities.shape[-1])[:, None])[:, 0])
    return Curve(torch.stack(points, dim=-1))


def pointing(patches: Patches, answers: Int64[Tensor, "B _"]) -> Bool[Tensor, " B"]:
    """Whether the highest patch is one of the answers; by chance it is for their share of the patches.

    Raises:
        UserError: If the answers are not patches, some for each image.
    """
    check_maps(patches)
    if not isinstance(answers, Tensor) or answers.ndim != 2 or len(answers) != len(patches):
        shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise UserError(f"answers must be patches, a row for each of {len(patches)} images, got {shape}")
    indices("answers", answers.flatten(), patches.shape[1], "patches ")
    return (patches.argmax(dim=-1, keepdim=True) == answers.to(patches.device)).any(dim=-1)


@dataclass(frozen=True)
class Change:
    """What a knock-out did to each image."""

    logit: Float[Tensor, " B"]
    """After minus before, of the target."""
    accuracy: Float[Tensor, " B"]
    """1 where the label was named only after, -1 where only before, else 0; the mean is the change of accuracy."""


def effect(before: Float[Tensor, "B classes"], after: Float[Tensor, "B classes"], labels: Classes) -> Change:
    """The change of the logit of the class that was named before, and of being right.

    Raises:
        UserError: If these are not logits of as many images and classes, or not finite.
    """
    check_logits(before)
    check_logits(after)
    if before.ndim != 2 or before.shape != after.shape:
        raise UserError(f"logits before and after must be alike, got {tuple(before.shape)} and {tuple(after.shape)}")
    labels = class_targets(labels, len(before), before.device)
    named = before.argmax(dim=-1, keepdim=True)
    right = [(logits.argmax(dim=-1) == labels.to(logits.device)).float() for logits in (before, after)]
    return Change((after - before).gather(-1, named)[:, 0], right[1] - right[0])


def knock_out_top(
    net: nn.Module, images: Images, labels: Classes, order: Order, count: int = 8, batch: int = 128
) -> Change:
    """All attention to the first patches of an order is cut, in every layer and head; a patch still sees itself.

    A pool by attention is cut from them too. A pool by mean is no attention: it goes on reading those patches, so that
    for such a network only what others fetch from them is lost.

    Args:
        net: A classifier in evaluation, of any family that ``record`` sees.
        images: Normalised images.
        labels: Their classes.
        order: Which patches matter most.
        count: How many of them are cut.
        batch: Images at a time.

    Raises:
        UserError: If there are not so many patches, or if the network's attention is not seen.
    """
    check_images(net, images)
    layout = token_layout(net, images)
    patches = layout.grid_size[0] * layout.grid_size[1]
    if whole("count", count) > patches:
        raise UserError(f"count must be in 1..{patches}, got {count}")
    check_order(order, len(images), patches)
    tokens = layout.num_prefix_tokens + patches
    named = token_mask(tokens, order[:, :count].expand(len(images), -1).to(images.device) + layout.num_prefix_tokens)
    cut = named[:, None, :] & ~torch.eye(tokens, dtype=torch.bool, device=images.device)
    pool = None
    if layout.pools_by_attention:
        pool = named if layout.pool_include_prefix else named[:, layout.num_prefix_tokens :]
    before = logits_by_batch(net, images, batch)
    return effect(before, logits_by_batch(net, images, batch, cut, pool), labels)


def logits_by_batch(
    net: nn.Module,
    images: Images,
    batch: int = 128,
    cut: Bool[Tensor, "_ N N"] | None = None,
    pool: Bool[Tensor, "_ pooled"] | None = None,
) -> Float[Tensor, "B classes"]:
    """Logits without a graph, with the edges of each image cut, if any are.

    Raises:
        UserError: If the network does not take the images.
    """
    check_images(net, images)
    batch, parts = whole("batch", batch), []
    for start in range(0, len(images), batch):
        mine = slice(start, start + batch)
        with torch.no_grad():
            if cut is None and pool is None:
                parts.append(logits_of(call_network(net, images[mine])).float())
                continue
            edges, pooled = (None if x is None else x if len(x) == 1 else x[mine] for x in (cut, pool))
            with knockout(net, edges, pool=pooled):
                parts.append(logits_of(call_network(net, images[mine])).float())
    return torch.cat(parts)


def predicted(net: nn.Module, images: Images, batch: int = 128) -> Classes:
    """The classes that a network names.

    Raises:
        UserError: If the network does not take the images, or gives NaN.
    """
    return check_logits(logits_by_batch(net, images, batch)).argmax(dim=-1)
