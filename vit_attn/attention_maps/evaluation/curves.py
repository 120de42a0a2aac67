"""Deletion and insertion curves of several orders of the same images, in batches of masked images of any mixture."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.batch import Classes, Images
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.token_layout import patches_to_pixels, token_layout


def probability_curves(
    net: nn.Module,
    images: Images,
    orders: Int64[Tensor, "K B P"],
    target: Classes,
    steps: int,
    batch: int = 128,
    inserting: Sequence[bool] = (),
    on_forwards: Callable[[int], None] = lambda images: None,
) -> Float[Tensor, "K B points"]:
    """Probability of the target as patches are deleted or inserted, the first point for none of them.

    Whole and empty images, with which all curves begin or end, are run once. Copies of images are made for one batch at
    a time.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images, of which zeros are the data set's mean.
        orders: Patches by rank, several orders of each image.
        target: One class per image.
        steps: Points of each curve after the first.
        batch: Masked images at a time.
        inserting: Whether the patches of each order are inserted; by default all are deleted.
        on_forwards: Called after each batch with its number of images.
    """
    count, patches = orders.shape[1:]
    device, layout, size = images.device, token_layout(net, images), (images.shape[-2], images.shape[-1])
    ranks, target = orders.argsort(dim=-1).to(device), target.to(device)
    inserts = torch.tensor(list(inserting) or [False] * len(orders), device=device)
    changed = torch.tensor([round(step * patches / steps) for step in range(steps + 1)], device=device)

    def probabilities(image: Int64[Tensor, " part"], kept: Bool[Tensor, "part P"]) -> Float[Tensor, " part"]:
        masked = images[image] * patches_to_pixels(kept.to(images.dtype), layout, size, outside=1.0)
        with torch.no_grad():
            found = logits_of(net(masked)).float().softmax(dim=-1).gather(-1, target[image, None])[:, 0]
        on_forwards(len(image))
        return found

    every = torch.arange(count, device=device)
    whole, empty = (
        torch.cat([probabilities(part, torch.full((len(part), patches), kept, device=device)) for part in each])
        for kept, each in ((True, every.split(batch)), (False, every.split(batch)))
    )
    curves = torch.empty(len(orders), count, steps + 1, device=device)
    curves[..., 0] = torch.where(inserts[:, None], empty, whole)
    curves[..., -1] = torch.where(inserts[:, None], whole, empty)
    for part in torch.arange(len(orders) * count * (steps - 1), device=device).split(batch):
        order, image, step = part // (count * (steps - 1)), part // (steps - 1) % count, part % (steps - 1) + 1
        remaining = ranks[order, image] >= changed[step, None]
        curves[order, image, step] = probabilities(image, remaining ^ inserts[order, None])
    return curves
