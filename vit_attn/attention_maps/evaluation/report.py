"""Every method on one network and its images, judged by every measure, beside baselines that look at nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS, Comparison, compare
from vit_attn.attention_maps.evaluation.faithfulness import (
    Change,
    Curve,
    centre_first,
    deletion,
    effect,
    insertion,
    knock_out_top,
    logits_by_batch,
    order_of,
    pointing,
    random_patches,
)
from vit_attn.attention_maps.evaluation.randomization import parts_of, randomised_check
from vit_attn.attention_maps.methods.legrad import legrad
from vit_attn.attention_maps.methods.relevance import grad_rollout, relevance
from vit_attn.attention_maps.methods.rollout import raw_rows, rollout
from vit_attn.attention_maps.recording.knockout import ablate, edges, token_mask
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError

Rows = Float[Tensor, "B Q N"]


def _last(recording: Recording) -> Rows:
    """The pooled row of the last layer, or the pool's own attention."""
    return recording.query_rows() if recording.pool is not None else raw_rows(recording)


METHODS: dict[str, Callable[[Recording, Int64[Tensor, " B"]], Rows]] = {
    "last layer": lambda recording, target: _last(recording),
    "rollout, mean": lambda recording, target: rollout(recording),
    "rollout, max": lambda recording, target: rollout(recording, fusion="max"),
    "rollout, min": lambda recording, target: rollout(recording, fusion="min"),
    "rollout, discard 0.5": lambda recording, target: rollout(recording, discard=0.5),
    "gradient rollout": lambda recording, target: grad_rollout(recording, target),
    "relevance": lambda recording, target: relevance(recording, target),
}
LEGRAD, RANDOM, CENTRE = "LeGrad", "random", "centre first"
VERDICTS = {"deletion": False, "insertion": True, "logit_8": False}
"""Measures that methods are judged by beside the baselines, and whether higher is better."""
KNOCK_OUTS = (1, 8)


class MetricRow(NamedTuple):
    """One number an image of each measure of one method; NaN where it cannot be had."""

    deletion: Float[Tensor, " B"]
    insertion: Float[Tensor, " B"]
    logit_1: Float[Tensor, " B"]
    accuracy_1: Float[Tensor, " B"]
    logit_8: Float[Tensor, " B"]
    accuracy_8: Float[Tensor, " B"]
    head_randomised: Float[Tensor, " B"]
    all_randomised: Float[Tensor, " B"]
    bought: Float[Tensor, " B"]
    any_coin: Float[Tensor, " B"]
    buyer: Float[Tensor, " B"]


@dataclass
class GroundTruthPatches:
    """Where the answer of each image stands, in patches of the network."""

    buyer: Int64[Tensor, "B _"]
    bought: Int64[Tensor, "B _"]
    coins: Int64[Tensor, "B _"]


@dataclass
class FaithfulnessReport:
    """What was found of one network."""

    accuracy: float
    methods: dict[str, MetricRow] = field(default_factory=dict)
    curves: dict[str, tuple[Float[Tensor, " points"], Float[Tensor, " points"]]] = field(default_factory=dict)
    """Mean probabilities by deletion and by insertion."""
    edges: dict[str, Change] = field(default_factory=dict)
    heads: dict[tuple[int, int], Change] = field(default_factory=dict)
    """By layer and head, what its ablation does."""
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    """By method and measure of ``VERDICTS``, what it is beside random orders and centre first."""


class EvalBatch(NamedTuple):
    """A network in evaluation, normalised images and their labels, and where the answers stand, if that is known."""

    net: nn.Module
    images: Float[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    places: GroundTruthPatches | None = None


def judge_network(case: EvalBatch, seed: int = 0, steps: int = 16) -> FaithfulnessReport:
    """Judge all methods by all measures.

    Args:
        case: What is judged on what.
        seed: Seed of the random patches and of the weights of the randomised network.
        steps: Points of the curves of deletion and insertion.

    Raises:
        UserError: If the network's logits are not finite, of which nothing could be said.
    """
    net, images, labels, places = case
    logits = logits_by_batch(net, images)
    if broken := int((~logits.isfinite()).any(dim=-1).sum()):
        raise UserError(f"the network gives NaN or infinity for {broken} of {len(images)} images: it cannot be judged")
    target = logits.argmax(dim=-1)
    verdict = FaithfulnessReport((target == labels).double().mean().item())
    drawn = (1, len(parts_of(net)))
    correlation = randomised_check(net, lambda other: patch_maps(other, images, target), drawn, seed)
    by_order: dict[str, list[MetricRow]] = {}
    for name, draws in all_maps(net, images, target, seed).items():
        parts, curves = [], []
        for patches in draws:
            order = order_of(patches)
            down = deletion(net, images, order, target, steps)
            if name == RANDOM:  # a random order in reverse is another one
                up = Curve(down.probabilities.flip(-1))
            else:
                up = insertion(net, images, order, target, steps)
            changes = _knocked_out(case, order)
            unchanged = torch.ones(2, len(images), device=images.device)  # of what does not look at the network
            answered = [pointing(patches, each).float() for each in _answers(places)] or [_none(images)] * 3
            parts.append([down.area, up.area, *changes, *correlation.get(name, unchanged), *answered])
            curves.append((down.probabilities.mean(dim=0), up.probabilities.mean(dim=0)))
        by_order[name] = [MetricRow(*part) for part in parts]
        verdict.methods[name] = MetricRow(*(torch.stack(column).mean(dim=0) for column in zip(*parts, strict=True)))
        down, up = (torch.stack(column).mean(dim=0) for column in zip(*curves, strict=True))
        verdict.curves[name] = (down, up)
    verdict.comparisons = _compared(by_order)
    verdict.edges = cut_edges(case, logits, seed) if places is not None else {}
    verdict.heads = ablate_heads(case, logits)
    return verdict


def _knocked_out(case: EvalBatch, order: Int64[Tensor, "B P"]) -> list[Float[Tensor, " B"]]:
    """Changes of logit and accuracy without the first patches; NaN where there are fewer."""
    changes = []
    for count in KNOCK_OUTS:
        if count > order.shape[-1]:
            changes += [_none(case.images)] * 2
            continue
        cut = knock_out_top(case.net, case.images, case.labels, order, count)
        changes += [cut.logit, cut.accuracy]
    return changes


def _compared(by_order: dict[str, list[MetricRow]]) -> dict[str, dict[str, Comparison]]:
    """Each method's measures beside those of both baselines, of those that can be had."""

    def of(name: str, measure: str) -> Tensor:
        return torch.stack([getattr(columns, measure) for columns in by_order[name]])

    return {
        name: {
            measure: compare(of(name, measure)[0], of(RANDOM, measure), of(CENTRE, measure)[0])
            for measure in VERDICTS
            if not of(name, measure).isnan().all()
        }
        for name in by_order
        if name not in (RANDOM, CENTRE)
    }


def all_maps(
    net: nn.Module, images: Float[Tensor, "B C height width"], target: Int64[Tensor, " B"], seed: int
) -> dict[str, list[Float[Tensor, "B P"]]]:
    """The maps of all methods and baselines; of the random one several orders."""
    grid = token_layout(net, images).grid_size
    shape = (len(images), grid[0] * grid[1])
    maps = {name: [patches] for name, patches in patch_maps(net, images, target).items()}
    draws = [random_patches(shape, seed * RANDOM_ORDERS + draw).to(images.device) for draw in range(RANDOM_ORDERS)]
    return maps | {RANDOM: draws, CENTRE: [centre_first(grid).expand(shape).to(images.device)]}


def patch_maps(
    net: nn.Module, images: Float[Tensor, "B C height width"], target: Int64[Tensor, " B"], batch: int = 64
) -> dict[str, Float[Tensor, "B P"]]:
    """The map of the pooled row by every method, of patches only; LeGrad where the network has what it needs."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(images), batch):
        mine, asked = images[start : start + batch], target[start : start + batch]
        with torch.enable_grad(), record(net, gradients=True) as recording:
            net(mine)
        for name, method in METHODS.items():
            rows = method(recording, asked)[:, 0, recording.num_prefix_tokens :]
            parts.setdefault(name, []).append(rows.expand(len(mine), -1).detach())
        if all(hasattr(net, part) for part in ("blocks", "norm", "forward_head")):
            parts.setdefault(LEGRAD, []).append(legrad(net, mine, asked)[:, recording.num_prefix_tokens :].detach())
    return {name: torch.cat(of_method) for name, of_method in parts.items()}


def cut_edges(case: EvalBatch, before: Float[Tensor, "B classes"], seed: int) -> dict[str, Change]:
    """What the edges between answer, buyer and pooled row do, in all layers, and as many edges to other patches."""
    net, images, labels, places = case
    if places is None:
        raise UserError("edges are cut between known places only")
    layout = token_layout(net, images)
    patches = layout.grid_size[0] * layout.grid_size[1]
    tokens, prefix = layout.num_prefix_tokens + patches, layout.num_prefix_tokens
    free = random_patches((len(images), patches), seed)
    free.scatter_(-1, torch.cat([places.buyer, places.coins], dim=-1), -1.0)
    noise = free.topk(places.coins.shape[-1], dim=-1).indices
    changes = {}
    for name, keys in (("bought", places.bought), ("coins", places.coins), ("as many others", noise)):
        cut = pool = None
        if layout.pools_by_attention:
            first = 0 if layout.pool_include_prefix else prefix
            pool = token_mask(tokens, keys + prefix)[:, first:]
        elif layout.global_pool.startswith("token"):
            cut = edges(tokens, [0], keys + prefix)
        elif layout.global_pool == "prefix":
            cut = edges(tokens, range(prefix), keys + prefix)
        else:
            continue  # a mean over the patches has no edges to cut
        changes[f"pooled row → {name}"] = effect(before, logits_by_batch(net, images, 128, cut, pool), labels)
    pairs = {
        "buyer → coins": (places.buyer, places.coins),
        "coins → buyer": (places.coins, places.buyer),
        "buyer → as many others": (places.buyer, noise),
    }
    for name, (queries, keys) in pairs.items():
        cut = edges(tokens, queries + prefix, keys + prefix)
        changes[name] = effect(before, logits_by_batch(net, images, 128, cut), labels)
    return changes


def ablate_heads(case: EvalBatch, before: Float[Tensor, "B classes"]) -> dict[tuple[int, int], Change]:
    """What each head's absence does, one at a time."""
    with torch.no_grad(), record(case.net) as recording:
        case.net(case.images[:1])
    changes = {}
    for number, layer in enumerate(recording):
        for head in range(layer.calls[0].q.shape[1]):
            with ablate(case.net, {number: [head]}):
                after = logits_by_batch(case.net, case.images)
            changes[number, head] = effect(before, after, case.labels)
    return changes


def mean_and_error(values: Float[Tensor, " B"]) -> tuple[float, float]:
    """Mean over the images, and its standard error; NaN of a single image."""
    values = values.double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


def _answers(places: GroundTruthPatches | None) -> list[Tensor]:
    return [] if places is None else [places.bought, places.coins, places.buyer]


def _none(images: Float[Tensor, "B C height width"]) -> Float[Tensor, " B"]:
    return torch.full((len(images),), torch.nan, device=images.device)
