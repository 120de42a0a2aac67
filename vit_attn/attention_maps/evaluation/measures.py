"""Measures of all methods and baselines on a few images at a time, and of the effects of knock-outs, image by image."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS
from vit_attn.attention_maps.evaluation.batch import EvalBatch, logits_by_batch
from vit_attn.attention_maps.evaluation.curves import probability_curves
from vit_attn.attention_maps.evaluation.faithfulness import centre_first_map, order_of, pointing, random_maps
from vit_attn.attention_maps.evaluation.knockouts import KnockoutEffect, ablate_heads, edge_effects, knock_out_top
from vit_attn.attention_maps.evaluation.randomization import parameter_groups, randomization_check
from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_methods
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError

RANDOM, CENTRE = "random", "centre first"
BASELINES = (RANDOM, CENTRE)
"""Labels of the content-free baselines, which no method may have."""
KNOCKED_OUT = (1, 8)
"""Numbers of top-ranked patches that are knocked out."""
STEPS = 16
"""Points of the deletion and insertion curves after the first."""

RECORDED_NETWORKS = 3
"""Networks whose attention is recorded: as it is, with its head and with all weights re-initialised."""
RECORDING_COST = 9
"""Plain forward passes that take as long as the maps of all methods by one network: two forwards with gradients."""

PartMeasures = dict[tuple[str, ...], Tensor]
"""Measures of some images, the first axis of each tensor, by what they are of: ``("correct",)``; ``("row", label,
order, measure)`` and ``("region", label, order, region)``, with orders from 0, of which only random maps have several;
``("curve", label, "deletion" or "insertion")``; ``("edge", name, "logit" or "accuracy")``; ``("head", layer, head,
"logit" or "accuracy")``."""


class JudgeSettings(NamedTuple):
    """Settings of an evaluation.

    Args:
        seed: Seed of the random maps and of the re-initialised weights.
        steps: Points of the deletion and insertion curves after the first.
        batch: Images of a forward without gradients.
    """

    seed: int = 0
    steps: int = STEPS
    batch: int = 128


def measure_part(
    batch: EvalBatch,
    settings: JudgeSettings,
    first: int = 0,
    on_forwards: Callable[[int], None] = lambda images: None,
) -> PartMeasures:
    """Measure the maps of some images, whose attention is recorded with gradients at once.

    Args:
        batch: Network and images.
        settings: Settings, which are those of all parts.
        first: Number of the first image, from 0, by which its random orders are chosen.
        on_forwards: Called with numbers of images that have passed the network since the last call.

    Returns:
        Measures on the CPU.

    Raises:
        UserError: If the network's logits are not finite.
    """
    net, images, labels, ground_truth = batch
    logits = logits_by_batch(net, images, settings.batch)
    if broken := int((~logits.isfinite()).any(dim=-1).sum()):
        raise UserError(f"the network gives NaN or infinity for {broken} of {len(images)} images: it cannot be judged")
    target = logits.argmax(dim=-1)
    correct = torch.full_like(target, torch.nan, dtype=torch.float32) if labels is None else (target == labels).float()
    found: PartMeasures = {("correct",): correct}
    trained = patch_maps(net, images, target)
    stages = (1, len(parameter_groups(net)))
    correlations = randomization_check(
        net, lambda other: trained if other is net else patch_maps(other, images, target), stages, settings.seed
    )
    on_forwards(len(images) * (1 + RECORDED_NETWORKS * RECORDING_COST))
    maps = with_baselines(trained, token_layout(net, images).grid_size, settings.seed, first)
    orders = {label: [order_of(each) for each in of_label] for label, of_label in maps.items()}
    found |= _curves(batch, orders, target, settings, on_forwards)
    for label, of_label in orders.items():
        unchanged = torch.ones(2, len(images), device=images.device)  # correlation of a map without a network
        head, everything = correlations.get(label, unchanged)
        for number, order in enumerate(of_label):
            key, values = (label, str(number)), _knock_outs(batch, order, logits, settings.batch)
            values |= {"head_randomised": head, "all_randomised": everything}
            found |= {("row", *key, name): value for name, value in values.items()}
            for name, region in (ground_truth.regions if ground_truth else {}).items():
                found["region", *key, name] = pointing(maps[label][number], region)
            on_forwards(len(images) * sum(count <= order.shape[-1] for count in KNOCKED_OUT))
    edges = edge_effects(batch, logits, settings.seed, first) if ground_truth else {}
    effects = {("edge", name): effect for name, effect in edges.items()}
    effects |= {("head", str(x), str(y)): each for (x, y), each in ablate_heads(batch, logits).items()}
    on_forwards(len(images) * len(effects))
    for key, effect in effects.items():
        found |= {(*key, "logit"): effect.logit, (*key, "accuracy"): effect.accuracy}
    return {key: value.cpu() for key, value in found.items()}


def merge_parts(parts: Sequence[PartMeasures]) -> PartMeasures:
    """Measures of all images of several parts, in their order."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _curves(
    batch: EvalBatch,
    orders: dict[str, list[Int64[Tensor, "B P"]]],
    target: Int64[Tensor, " B"],
    settings: JudgeSettings,
    on_forwards: Callable[[int], None],
) -> PartMeasures:
    """Curves, mean over several orders, and the areas of each; a random order in reverse is a random order."""
    deleted = [(label, order) for label in orders for order in orders[label]]
    inserted = [(label, order) for label, order in deleted if label != RANDOM]
    listed = [(each, "deletion") for each in deleted] + [(each, "insertion") for each in inserted]
    curves = probability_curves(
        batch.net,
        batch.images,
        torch.stack([order for (_, order), _ in listed]),
        target,
        settings.steps,
        settings.batch,
        [measure == "insertion" for _, measure in listed],
        on_forwards,
    )
    if not curves.isfinite().all():
        raise UserError("the network gives NaN or infinity for images without some patches: it cannot be judged")
    points: dict[tuple[str, str], list[Tensor]] = {}
    for ((label, _), measure), curve in zip(listed, curves, strict=True):
        points.setdefault((label, measure), []).append(curve)
    points[RANDOM, "insertion"] = [curve.flip(-1) for curve in points[RANDOM, "deletion"]]
    found: PartMeasures = {}
    for (label, measure), of_label in points.items():
        found["curve", label, measure] = torch.stack(of_label).mean(dim=0)
        for number, curve in enumerate(of_label):
            found["row", label, str(number), measure] = torch.trapezoid(curve, dim=-1) / settings.steps
    return found


def _knock_outs(
    batch: EvalBatch, order: Int64[Tensor, "B P"], before: Float[Tensor, "B classes"], rows: int
) -> dict[str, Float[Tensor, " B"]]:
    """Changes of logit and accuracy without the top-ranked patches; NaN where the network has fewer patches."""
    changes = {}
    for count in KNOCKED_OUT:
        if count <= order.shape[-1]:
            effect = knock_out_top(batch.net, batch.images, batch.labels, order, count, rows, before)
        else:
            effect = KnockoutEffect(*[torch.full((len(order),), torch.nan)] * 2)
        changes |= {f"logit_{count}": effect.logit, f"accuracy_{count}": effect.accuracy}
    return changes


def with_baselines(
    maps: Mapping[str, Float[Tensor, "B P"]], grid_size: tuple[int, int], seed: int, first: int = 0
) -> dict[str, list[Float[Tensor, "B P"]]]:
    """Maps of methods and baselines by label; several random ones.

    Args:
        maps: Maps of the methods by label.
        grid_size: Rows and columns of patches.
        seed: Seed of the random maps.
        first: Number of the first image, from 0, by which its random maps are chosen.
    """
    some = next(iter(maps.values()))
    shape = (len(some), grid_size[0] * grid_size[1])
    random = [random_maps(shape, seed * RANDOM_ORDERS + i, first).to(some.device) for i in range(RANDOM_ORDERS)]
    centre = centre_first_map(grid_size).expand(shape).to(some.device)
    return {label: [of_method] for label, of_method in maps.items()} | {RANDOM: random, CENTRE: [centre]}


def patch_maps(
    net: nn.Module, images: Float[Tensor, "B C height width"], target: Int64[Tensor, " B"]
) -> dict[str, Float[Tensor, "B P"]]:
    """Maps of the pooled row by the label of each method that the network supports, patches only.

    All images are recorded at once, with gradients.
    """
    with torch.enable_grad(), record(net, gradients=True) as recording:
        net(images)
    inputs, prefix = AttributionInput(net, images, recording, target), recording.num_prefix_tokens
    return {
        method.label: method.rows(inputs)[:, 0, prefix:]
        for method in attribution_methods().values()
        if method.supports(net)
    }
