"""Evaluation of all attribution methods on one network, compared with content-free baselines and with each other."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.evaluation.baselines import Comparison, compare
from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.cost import forwards_per_image, recording_size
from vit_attn.attention_maps.evaluation.intervals import Comparisons, compare_methods, t_quantile
from vit_attn.attention_maps.evaluation.knockouts import KnockoutEffect
from vit_attn.attention_maps.evaluation.measures import (
    BASELINES,
    CENTRE,
    RANDOM,
    STEPS,
    JudgeSettings,
    PartMeasures,
    measure_part,
    merge_parts,
)
from vit_attn.errors import UserError

COMPARED = {"deletion": False, "insertion": True, "logit_8": False}
"""Measures by which methods are compared, and whether higher is better."""


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
        images: Number of images.
        accuracy: Accuracy on the images, in [0, 1]; None where their labels are unknown.
        methods: Measures by the method's label.
        curves: Mean probabilities by deletion and by insertion, by the method's label.
        curve_margins: Half-widths of the 95 % intervals of these means over the images.
        edges: Effects of knocking out edges between ground-truth regions, by the edge's name.
        heads: Effects of ablating a head, by layer and head, both from 0.
        comparisons: By method and measure of ``COMPARED``, the method compared with random orders and centre first.
        between: By measure of ``COMPARED``, the methods compared with each other.
    """

    images: int
    accuracy: float | None
    methods: dict[str, MetricRow] = field(default_factory=dict)
    curves: dict[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]] = field(default_factory=dict)
    curve_margins: dict[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]] = field(default_factory=dict)
    edges: dict[str, KnockoutEffect] = field(default_factory=dict)
    heads: dict[tuple[int, int], KnockoutEffect] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    between: dict[str, Comparisons] = field(default_factory=dict)


def judge_network(
    batch: EvalBatch,
    seed: int = 0,
    steps: int = STEPS,
    part: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FaithfulnessReport:
    """Evaluate the maps of all registered methods and of the baselines by all measures.

    Args:
        batch: Network and images.
        seed: Seed of the random maps and of the re-initialised weights.
        steps: Points of the deletion and insertion curves after the first.
        part: Images that are recorded at once; by default as many as their memory allows.
        on_progress: Called with the forward passes that are done, and their number in all.

    Raises:
        UserError: If the network's logits are not finite, or if a region is called like a measure.
    """
    check_regions(batch)
    count, size = len(batch.images), recording_size(batch.net, batch.images[:1])
    settings, part = JudgeSettings(seed, steps, size.forward_batch), part or size.images_at_once
    total, done, parts = count * forwards_per_image(batch.part(slice(1)), steps), 0, []

    def advance(images: int) -> None:
        nonlocal done
        done += images
        on_progress(done, total)

    for first in range(0, count, part):
        parts.append(measure_part(batch.part(slice(first, first + part)), settings, first, advance))
    return report_of(merge_parts(parts))


def check_regions(batch: EvalBatch) -> None:
    """Refuse ground truth whose names are those of measures.

    Raises:
        UserError: If it is so.
    """
    if batch.ground_truth and (reserved := set(MetricRow._fields) & set(batch.ground_truth.regions)):
        raise UserError(f"regions must not be called like a measure, got {', '.join(sorted(reserved))}")


def report_of(measures: PartMeasures) -> FaithfulnessReport:
    """Summarise the measures of all images."""
    correct = measures["correct",]
    report = FaithfulnessReport(len(correct), None if correct.isnan().any() else correct.double().mean().item())
    rows: dict[str, list[MetricRow]] = {}
    for label in dict.fromkeys(key[1] for key in measures if key[0] == "row"):
        rows[label] = _rows(measures, label)
        report.methods[label] = _mean_row(rows[label])
        down, up = (measures["curve", label, measure] for measure in ("deletion", "insertion"))
        report.curves[label] = (down.mean(dim=0), up.mean(dim=0))
        report.curve_margins[label] = (_margin(down), _margin(up))
    report.comparisons = _comparisons(rows)
    report.between = _between(report.methods)
    for key in measures:
        if key[0] in ("edge", "head") and key[-1] == "logit":
            effect = KnockoutEffect(measures[key], measures[*key[:-1], "accuracy"])
            if key[0] == "head":
                report.heads[int(key[1]), int(key[2])] = effect
            elif not effect.logit.isnan().all():
                report.edges[key[1]] = effect
    return report


def _rows(measures: PartMeasures, label: str) -> list[MetricRow]:
    """Rows of the maps of a method, of which only the random baseline has several."""
    orders = dict.fromkeys(key[2] for key in measures if key[:2] == ("row", label))
    return [
        MetricRow(
            **{key[3]: value for key, value in measures.items() if key[:3] == ("row", label, order)},
            pointing={key[3]: value for key, value in measures.items() if key[:3] == ("region", label, order)},
        )
        for order in orders
    ]


def _mean_row(rows: list[MetricRow]) -> MetricRow:
    """Mean over several maps of the same images."""
    columns = [row.columns() for row in rows]
    means = {name: torch.stack([column[name] for column in columns]).mean(dim=0) for name in columns[0]}
    regions = {name: means.pop(name) for name in rows[0].pointing}
    return MetricRow(**means, pointing=regions)


def _margin(points: Float[Tensor, "B points"]) -> Float[Tensor, " points"]:
    """Half-width of the 95 % interval of the mean over the images; NaN for a single image."""
    if len(points) < 2:
        return torch.full_like(points[0], torch.nan)
    return t_quantile(len(points) - 1) * points.std(dim=0) / math.sqrt(len(points))


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


def _between(methods: dict[str, MetricRow]) -> dict[str, Comparisons]:
    """Compare the methods with each other, by the measures that are defined."""
    found = {}
    for measure, higher_is_better in COMPARED.items():
        values = {label: row.columns()[measure] for label, row in methods.items() if label not in BASELINES}
        if not any(each.isnan().all() for each in values.values()):
            found[measure] = compare_methods(values, higher_is_better)
    return found


def mean_and_error(values: Float[Tensor, " B"]) -> tuple[float, float]:
    """Mean over the images that have a value, and its standard error; NaN of no image, and the error of one."""
    values = values[~values.isnan()].double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
