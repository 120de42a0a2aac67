"""Comparison of maps with content-free baselines, random orders and centre first, by margins of 95 %.

A difference counts where it is larger than its margin, which covers the spread over images and over random orders.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.batch import Classes, Images
from vit_attn.attention_maps.evaluation.curves import probability_curves
from vit_attn.attention_maps.evaluation.faithfulness import (
    PatchMaps,
    centre_first_map,
    order_of,
    random_maps,
)
from vit_attn.attention_maps.evaluation.intervals import SMALLEST_DIFFERENCE, Relation, relation, t_quantile
from vit_attn.attention_maps.recording.token_layout import token_layout

RANDOM_ORDERS = 8
"""Random orders of each image's patches; one in reverse is random too, so each gives deletion and insertion."""
MEASURES = ("deletion", "insertion")


class Comparison(NamedTuple):
    """Mean of a measure over images, with the baselines' means and the margins that differences must exceed.

    A margin is the largest of three: ``SMALLEST_DIFFERENCE``; the 95 % half-width of the mean difference over images
    (Student's t of paired differences); and that of the choice of an order alone: standard deviation of the random
    orders' means, times t √(1 + 1/orders) beside their mean, and times t √2 beside centre first, which is a single
    order as the method's is. A single image has no spread over images.

    Args:
        value: Mean of the method.
        random: Mean of the random orders.
        random_margin: Margin of the difference from it.
        centre: Mean of centre first.
        centre_margin: Margin of the difference from it.
    """

    value: float
    random: float
    random_margin: float
    centre: float
    centre_margin: float

    def relations(self, higher_is_better: bool) -> tuple[Relation, Relation]:
        """Relation of the method to random orders, and to centre first."""
        sign = 1 if higher_is_better else -1
        return (
            relation(sign * (self.value - self.random), self.random_margin),
            relation(sign * (self.value - self.centre), self.centre_margin),
        )


def compare(values: Float[Tensor, " B"], random: Float[Tensor, "orders B"], centre: Float[Tensor, " B"]) -> Comparison:
    """Compare a measure of one method with the baselines'.

    Args:
        values: The method's, one per image.
        random: Those of at least two random orders.
        centre: Those of centre first.
    """
    values, random, centre = (x.cpu().double() for x in (values, random, centre))
    orders = len(random)
    one_order = t_quantile(orders - 1) * random.mean(dim=1).std().item()
    means = random.mean(dim=0)
    margins = []
    for baseline, baseline_orders in ((means, orders), (centre, 1)):
        by_order = one_order * math.sqrt(1 + 1 / baseline_orders)
        by_image = 0.0
        if len(values) > 1:
            by_image = t_quantile(len(values) - 1) * (values - baseline).std().item() / math.sqrt(len(values))
        undefined = math.isnan(by_order) or math.isnan(by_image)
        margins.append(math.nan if undefined else max(by_order, by_image, SMALLEST_DIFFERENCE))
    return Comparison(values.mean().item(), means.mean().item(), margins[0], centre.mean().item(), margins[1])


@dataclass(frozen=True)
class Judgement:
    """Comparisons of several methods' maps of the same images with the baselines, by deletion and insertion.

    Args:
        orders: Number of random orders of each image.
        overall: Comparisons over all images, by method and measure.
        by_image: Comparisons on each image alone, by method and measure.
    """

    orders: int
    overall: dict[str, dict[str, Comparison]]
    by_image: list[dict[str, dict[str, Comparison]]]


def judge_maps(
    net: nn.Module,
    images: Images,
    maps: Mapping[str, PatchMaps],
    target: Classes,
    steps: int = 8,
    orders: int = RANDOM_ORDERS,
    batch: int = 128,
) -> Judgement:
    """Compare the maps of several methods with random orders and centre first, by deletion and insertion.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images, of which zeros are the data set's mean.
        maps: Maps of each method, one per image.
        target: One class per image.
        steps: Points of each curve after the first.
        orders: Random orders of each image.
        batch: Masked images at a time.
    """
    grid = token_layout(net, images).grid_size
    shape = (len(images), grid[0] * grid[1])
    ranked = [order_of(method_maps).cpu() for method_maps in maps.values()]  # those of a summary are on the host
    ranked.append(order_of(centre_first_map(grid)).expand(shape))
    random = [order_of(random_maps(shape, seed)) for seed in range(orders)]
    stacked = torch.stack([*ranked, *(order.flip(-1) for order in ranked), *random])
    areas = deletion_areas(net, images, stacked, target, steps, batch)
    count = len(ranked)
    by_measure = dict(zip(MEASURES, (areas[:count], areas[count : 2 * count]), strict=True))
    random_areas = areas[2 * count :]

    def comparisons(part: slice) -> dict[str, dict[str, Comparison]]:
        return {
            name: {
                measure: compare(measured[i, part], random_areas[:, part], measured[-1, part])
                for measure, measured in by_measure.items()
            }
            for i, name in enumerate(maps)
        }

    return Judgement(orders, comparisons(slice(None)), [comparisons(slice(i, i + 1)) for i in range(len(images))])


def deletion_areas(
    net: nn.Module, images: Images, orders: Int64[Tensor, "K B P"], target: Classes, steps: int, batch: int = 128
) -> Float[Tensor, "K B"]:
    """Areas under the deletion curves of several orders of the same images.

    The area of insertion is that of deletion in reverse order. Whole and empty images, with which all curves begin and
    end, are run once.

    Args:
        net: A classifier in evaluation mode.
        images: Normalised images.
        orders: Patches by rank, several orders of each image.
        target: One class per image.
        steps: Points of each curve after the first.
        batch: Masked images at a time.
    """
    curves = probability_curves(net, images, orders, target, steps, batch)
    return torch.trapezoid(curves, dim=-1) / steps
