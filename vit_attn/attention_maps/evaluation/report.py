"""Evaluation of all attribution methods on one network, compared with content-free baselines."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS, Comparison, compare
from vit_attn.attention_maps.evaluation.batch import EvalBatch, logits_by_batch
from vit_attn.attention_maps.evaluation.faithfulness import (
    Curve,
    centre_first_map,
    deletion,
    insertion,
    order_of,
    pointing,
    random_maps,
)
from vit_attn.attention_maps.evaluation.knockouts import KnockoutEffect, ablate_heads, knock_out_edges, knock_out_top
from vit_attn.attention_maps.evaluation.randomization import parameter_groups, randomization_check
from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_methods
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError

RANDOM, CENTRE = "random", "centre first"
BASELINES = (RANDOM, CENTRE)
"""Labels of the content-free baselines, which no method may have."""
COMPARED = {"deletion": False, "insertion": True, "logit_8": False}
"""Measures by which methods are compared with the baselines, and whether higher is better."""
KNOCKED_OUT = (1, 8)
"""Numbers of top-ranked patches that are knocked out."""


class MetricRow(NamedTuple):
    """Measures of one method, one number per image each; NaN where it is not defined."""

    deletion: Float[Tensor, " B"]
    insertion: Float[Tensor, " B"]
    logit_1: Float[Tensor, " B"]
    accuracy_1: Float[Tensor, " B"]
    logit_8: Float[Tensor, " B"]
    accuracy_8: Float[Tensor, " B"]
    head_randomised: Float[Tensor, " B"]
    all_randomised: Float[Tensor, " B"]
    pointing: dict[str, Float[Tensor, " B"]]
    """By ground-truth region, whether the top-ranked patch is in it."""

    def columns(self) -> dict[str, Float[Tensor, " B"]]:
        """All measures by name, and pointing by region."""
        measures = self._asdict()
        return measures | measures.pop("pointing")


@dataclass
class FaithfulnessReport:
    """Results of :func:`judge_network`.

    Args:
        accuracy: Accuracy on the images, in [0, 1].
        methods: Measures by the method's label.
        curves: Mean probabilities by deletion and by insertion, by the method's label.
        curve_errors: Standard errors of these means over the images.
        edges: Effects of knocking out edges between ground-truth regions, by the edge's name.
        heads: Effects of ablating a head, by layer and head, both from 0.
        comparisons: By method and measure of ``COMPARED``, the method compared with random orders and centre first.
    """

    accuracy: float
    methods: dict[str, MetricRow] = field(default_factory=dict)
    curves: dict[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]] = field(default_factory=dict)
    curve_errors: dict[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]] = field(default_factory=dict)
    edges: dict[str, KnockoutEffect] = field(default_factory=dict)
    heads: dict[tuple[int, int], KnockoutEffect] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)


def judge_network(
    batch: EvalBatch, seed: int = 0, steps: int = 16, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> FaithfulnessReport:
    """Evaluate the maps of all registered methods and of the baselines by all measures.

    Args:
        batch: Network and images.
        seed: Seed of the random maps and of the re-initialised weights.
        steps: Points of the deletion and insertion curves after the first.
        on_progress: Called with the parts that are done, and their number in all.

    Raises:
        UserError: If the network's logits are not finite, or if a region is called like a measure.
    """
    net, images, labels, ground_truth = batch
    logits = logits_by_batch(net, images)
    if broken := int((~logits.isfinite()).any(dim=-1).sum()):
        raise UserError(f"the network gives NaN or infinity for {broken} of {len(images)} images: it cannot be judged")
    if ground_truth and (reserved := set(MetricRow._fields) & set(ground_truth.regions)):
        raise UserError(f"regions must not be called like a measure, got {', '.join(sorted(reserved))}")
    target = logits.argmax(dim=-1)
    report = FaithfulnessReport((target == labels).double().mean().item())
    stages = (1, len(parameter_groups(net)))
    correlations = randomization_check(net, lambda other: patch_maps(other, images, target), stages, seed)
    rows: dict[str, list[MetricRow]] = {}
    every_map = all_maps(net, images, target, seed)
    for number, (label, orders) in enumerate(every_map.items(), start=1):
        unchanged = torch.ones(2, len(images), device=images.device)  # correlation of a map without a network
        found = [_evaluate(batch, maps, label, target, steps, correlations.get(label, unchanged)) for maps in orders]
        rows[label] = [row for row, _ in found]
        report.methods[label] = _mean_row(rows[label])
        down, up = (torch.stack(points).mean(dim=0) for points in zip(*(curves for _, curves in found), strict=True))
        report.curves[label] = (down.mean(dim=0), up.mean(dim=0))
        report.curve_errors[label] = (_standard_error(down), _standard_error(up))
        on_progress(number, len(every_map) + 1)
    report.comparisons = _comparisons(rows)
    report.edges = knock_out_edges(batch, logits, seed) if ground_truth is not None else {}
    report.heads = ablate_heads(batch, logits)
    return report


def _evaluate(
    batch: EvalBatch,
    maps: Float[Tensor, "B P"],
    label: str,
    target: Int64[Tensor, " B"],
    steps: int,
    correlations: Float[Tensor, "2 B"],
) -> tuple[MetricRow, tuple[Float[Tensor, "B points"], Float[Tensor, "B points"]]]:
    """Measures of one map per image, and its deletion and insertion curves."""
    order = order_of(maps)
    down = deletion(batch.net, batch.images, order, target, steps)
    if label == RANDOM:  # a random order in reverse is a random order
        up = Curve(down.probabilities.flip(-1))
    else:
        up = insertion(batch.net, batch.images, order, target, steps)
    regions = {} if batch.ground_truth is None else batch.ground_truth.regions
    row = MetricRow(
        deletion=down.area,
        insertion=up.area,
        **_knock_outs(batch, order),
        head_randomised=correlations[0],
        all_randomised=correlations[1],
        pointing={name: pointing(maps, region) for name, region in regions.items()},
    )
    return row, (down.probabilities, up.probabilities)


def _standard_error(points: Float[Tensor, "B points"]) -> Float[Tensor, " points"]:
    """Standard error of the mean over the images."""
    return points.std(dim=0) / math.sqrt(len(points))


def _knock_outs(batch: EvalBatch, order: Int64[Tensor, "B P"]) -> dict[str, Float[Tensor, " B"]]:
    """Changes of logit and accuracy without the top-ranked patches; NaN where the network has fewer patches."""
    changes = {}
    for count in KNOCKED_OUT:
        if count > order.shape[-1]:
            effect = KnockoutEffect(*[torch.full((len(order),), torch.nan, device=order.device)] * 2)
        else:
            effect = knock_out_top(batch.net, batch.images, batch.labels, order, count)
        changes |= {f"logit_{count}": effect.logit, f"accuracy_{count}": effect.accuracy}
    return changes


def _mean_row(rows: list[MetricRow]) -> MetricRow:
    """Mean over several maps of the same images."""
    columns = [row.columns() for row in rows]
    means = {name: torch.stack([column[name] for column in columns]).mean(dim=0) for name in columns[0]}
    regions = {name: means.pop(name) for name in rows[0].pointing}
    return MetricRow(**means, pointing=regions)


def _comparisons(rows: dict[str, list[MetricRow]]) -> dict[str, dict[str, Comparison]]:
    """Compare each method with both baselines, by the measures that are defined."""

    def values(label: str, measure: str) -> Tensor:
        return torch.stack([getattr(row, measure) for row in rows[label]])

    return {
        label: {
            measure: compare(values(label, measure)[0], values(RANDOM, measure), values(CENTRE, measure)[0])
            for measure in COMPARED
            if not values(label, measure).isnan().all()
        }
        for label in rows
        if label not in BASELINES
    }


def all_maps(
    net: nn.Module, images: Float[Tensor, "B C height width"], target: Int64[Tensor, " B"], seed: int
) -> dict[str, list[Float[Tensor, "B P"]]]:
    """Maps of all methods and baselines by label; several random ones."""
    grid = token_layout(net, images).grid_size
    shape = (len(images), grid[0] * grid[1])
    maps = {label: [method_maps] for label, method_maps in patch_maps(net, images, target).items()}
    random = [random_maps(shape, seed * RANDOM_ORDERS + i).to(images.device) for i in range(RANDOM_ORDERS)]
    return maps | {RANDOM: random, CENTRE: [centre_first_map(grid).expand(shape).to(images.device)]}


def patch_maps(
    net: nn.Module, images: Float[Tensor, "B C height width"], target: Int64[Tensor, " B"], batch: int = 64
) -> dict[str, Float[Tensor, "B P"]]:
    """Maps of the pooled row by the label of each method that the network supports, patches only."""
    methods = [method for method in attribution_methods().values() if method.supports(net)]
    parts: dict[str, list[Tensor]] = {method.label: [] for method in methods}
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        with torch.enable_grad(), record(net, gradients=True) as recording:
            net(part)
        inputs = AttributionInput(net, part, recording, target[start : start + batch])
        for method in methods:
            parts[method.label].append(method.rows(inputs)[:, 0, recording.num_prefix_tokens :])
    return {label: torch.cat(maps) for label, maps in parts.items()}


def mean_and_error(values: Float[Tensor, " B"]) -> tuple[float, float]:
    """Mean over the images that have a value, and its standard error; NaN of no image, and the error of one."""
    values = values[~values.isnan()].double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
