"""Whether the order of a map does better than orders that look at no image, and by more than chance.

A map is judged against random orders and against centre first. A difference counts where it is larger than its margin,
which holds the spread over images and over several random orders.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.faithfulness import (
    Classes,
    Images,
    Patches,
    centre_first,
    order_of,
    random_patches,
)
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.token_layout import patches_to_pixels, token_layout

RANDOM_ORDERS = 8
"""Random orders of each image's patches; a random order in reverse is random too, so each gives both areas."""
SMALLEST_DIFFERENCE = 0.01
"""Smaller differences count for nothing, however sure: one hundredth of probability, or of a logit."""
Relation = Literal["better", "no measurable difference", "worse", "unknown"]
MEASURES = ("deletion", "insertion")


class Comparison(NamedTuple):
    """Mean of a measure over images, beside those of both baselines, each with the margin a difference must exceed.

    A margin is the larger one of two half-widths of 95 %: of the mean difference over images (Student's t of paired
    differences), and of what the choice of an order alone makes: standard deviation of the random orders' means, times
    t √(1 + 1/orders) beside their mean, and times t √2 beside centre first, which is one order as the method is. A
    single image has the second alone.
    """

    value: float
    random: float
    random_margin: float
    centre: float
    centre_margin: float

    def relations(self, higher_is_better: bool) -> tuple[Relation, Relation]:
        """How the method stands to random orders and to centre first."""
        sign = 1 if higher_is_better else -1
        return (
            _relation(sign * (self.value - self.random), self.random_margin),
            _relation(sign * (self.value - self.centre), self.centre_margin),
        )


def _relation(gain: float, margin: float) -> Relation:
    if not (math.isfinite(gain) and math.isfinite(margin)):
        return "unknown"
    if abs(gain) <= margin:
        return "no measurable difference"
    return "better" if gain > 0 else "worse"


def compare(values: Float[Tensor, " B"], random: Float[Tensor, "orders B"], centre: Float[Tensor, " B"]) -> Comparison:
    """A measure of one method beside the same of both baselines.

    Args:
        values: Of the method, one an image.
        random: Of at least two random orders.
        centre: Of centre first.
    """
    values, random, centre = (each.cpu().double() for each in (values, random, centre))
    orders = len(random)
    one_order = quantile(orders - 1) * random.mean(dim=1).std().item()
    means = random.mean(dim=0)
    margins = []
    for baseline, of_orders in ((means, orders), (centre, 1)):
        by_order = one_order * math.sqrt(1 + 1 / of_orders)
        by_image = 0.0
        if len(values) > 1:
            by_image = quantile(len(values) - 1) * (values - baseline).std().item() / math.sqrt(len(values))
        broken = math.isnan(by_order) or math.isnan(by_image)
        margins.append(math.nan if broken else max(by_order, by_image, SMALLEST_DIFFERENCE))
    middle = [each.mean().item() for each in (values, means, centre)]
    return Comparison(middle[0], middle[1], margins[0], middle[2], margins[1])


def quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t distribution, to one per cent.

    References:
        Abramowitz & Stegun 1964, "Handbook of mathematical functions", 26.7.5.

    >>> [round(quantile(freedom), 2) for freedom in (1, 2, 3, 7, 255)]
    [12.71, 4.3, 3.16, 2.36, 1.97]
    """
    if freedom < 3:
        return {1: 12.706, 2: 4.303}[freedom]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


@dataclass(frozen=True)
class Judgement:
    """What deletion and insertion say of several methods' maps of the same images.

    Args:
        orders: Random orders that each image's maps were compared with.
        overall: By method and measure, over all images.
        by_image: The same of each image alone.
    """

    orders: int
    overall: dict[str, dict[str, Comparison]]
    by_image: list[dict[str, dict[str, Comparison]]]


def judge_maps(
    net: nn.Module,
    images: Images,
    maps: Mapping[str, Patches],
    target: Classes,
    steps: int = 8,
    orders: int = RANDOM_ORDERS,
) -> Judgement:
    """Deletion and insertion by the maps of several methods, beside random orders and centre first.

    Args:
        net: A classifier in evaluation.
        images: Normalised images, of which zeros are the mean over the data set.
        maps: One map an image of each method.
        target: One class an image.
        steps: Points of each curve after the first.
        orders: Random orders of each image.
    """
    grid = token_layout(net, images).grid_size
    shape = (len(images), grid[0] * grid[1])
    ranked = [order_of(patches).cpu() for patches in maps.values()]  # a view's is on the host already
    ranked.append(order_of(centre_first(grid)).expand(shape))
    random = [order_of(random_patches(shape, seed)) for seed in range(orders)]
    every = torch.stack([*ranked, *(order.flip(-1) for order in ranked), *random])
    areas = deletion_areas(net, images, every, target, steps)
    count = len(ranked)
    by_measure = dict(zip(MEASURES, (areas[:count], areas[count : 2 * count]), strict=True))
    luck = areas[2 * count :]

    def compared(chosen: slice) -> dict[str, dict[str, Comparison]]:
        return {
            name: {
                measure: compare(found[i, chosen], luck[:, chosen], found[-1, chosen])
                for measure, found in by_measure.items()
            }
            for i, name in enumerate(maps)
        }

    return Judgement(orders, compared(slice(None)), [compared(slice(i, i + 1)) for i in range(len(images))])


def deletion_areas(
    net: nn.Module, images: Images, orders: Int64[Tensor, "K B P"], target: Classes, steps: int, batch: int = 128
) -> Float[Tensor, "K B"]:
    """Areas under deletion for several orders of the same images, many masked images a forward.

    The area of insertion is that of deletion in reverse order. Whole and empty images, in which all curves begin and
    end, are looked at once.

    Args:
        net: A classifier in evaluation.
        images: Normalised images.
        orders: Which patch goes first, several of each image.
        target: One class an image.
        steps: Points of each curve after the first.
        batch: Masked images at a time.
    """
    count, patches = orders.shape[1:]
    layout, size = token_layout(net, images), (images.shape[-2], images.shape[-1])
    ranks = orders.argsort(dim=-1).to(images.device)
    target = target.to(images.device)
    gone = torch.tensor([round(step * patches / steps) for step in range(1, steps)], device=images.device)

    def chances(image: Tensor, kept: Tensor) -> Tensor:
        masked = images[image] * patches_to_pixels(kept.to(images.dtype), layout, size, outside=1.0)
        with torch.no_grad():
            return logits_of(net(masked)).float().softmax(dim=-1).gather(-1, target[image, None])[:, 0]

    ends = torch.zeros(count, device=images.device)
    for part in torch.arange(count, device=images.device).split(batch):
        for kept in (0.0, 1.0):
            ends[part] += chances(part, torch.full((len(part), patches), kept, device=images.device))
    inner = []
    for part in torch.arange(len(orders) * count * len(gone), device=images.device).split(batch):
        order, image, step = part // (count * len(gone)), part // len(gone) % count, part % len(gone)
        inner.append(chances(image, ranks[order, image] >= gone[step, None]))
    between = torch.cat(inner).view(len(orders), count, len(gone)).sum(dim=-1) if inner else 0.0
    return (ends / 2 + between) / steps
