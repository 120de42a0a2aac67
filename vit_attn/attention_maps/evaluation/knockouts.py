"""Knock-outs: effects of removing attention edges, top-ranked patches and heads from the running network."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit_attn.attention_maps.checks import check_images, check_logits, check_order, class_targets, whole
from vit_attn.attention_maps.evaluation.batch import Classes, EvalBatch, Images, logits_by_batch
from vit_attn.attention_maps.evaluation.faithfulness import Order, random_maps
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches, region_title
from vit_attn.attention_maps.recording.knockout import ablate, token_mask
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.token_layout import TokenLayout, token_layout
from vit_attn.errors import UserError

POOLED_ROW, CONTROL = "pooled row", "as many others"
PatchMask = Bool[Tensor, "B P"]


@dataclass(frozen=True)
class KnockoutEffect:
    """Effect of a knock-out on each image; NaN for an image that has no such edges.

    Args:
        logit: Change of the predicted class's logit, after minus before.
        accuracy: 1 where the label is predicted only after, -1 where only before, else 0; its mean is the change of
            accuracy. NaN where labels are unknown.
    """

    logit: Float[Tensor, " B"]
    accuracy: Float[Tensor, " B"]


def knockout_effect(
    before: Float[Tensor, "B classes"], after: Float[Tensor, "B classes"], labels: Classes | None
) -> KnockoutEffect:
    """Change of the logit of the class that was predicted before, and of correctness.

    Raises:
        UserError: If the logits are not finite, or differ in shape.
    """
    check_logits(before)
    check_logits(after)
    if before.ndim != 2 or before.shape != after.shape:
        raise UserError(f"logits before and after must be alike, got {tuple(before.shape)} and {tuple(after.shape)}")
    change = (after - before).gather(-1, before.argmax(dim=-1, keepdim=True))[:, 0]
    if labels is None:
        return KnockoutEffect(change, torch.full_like(change, torch.nan))
    labels = class_targets(labels, len(before), before.device)
    correct = [(logits.argmax(dim=-1) == labels.to(logits.device)).float() for logits in (before, after)]
    return KnockoutEffect(change, correct[1] - correct[0])


def knock_out_top(
    net: nn.Module,
    images: Images,
    labels: Classes | None,
    order: Order,
    count: int = 8,
    batch: int = 128,
    before: Float[Tensor, "B classes"] | None = None,
) -> KnockoutEffect:
    """Knock out all attention to the top-ranked patches, in every layer and head; a patch still attends to itself.

    An attention pool loses them too. A mean is no attention: it goes on reading those patches, so that for such a
    network only what other tokens read from them is lost.

    Args:
        net: A classifier in evaluation mode, of any family that ``record`` takes.
        images: Normalised images.
        labels: Their classes; None where they are unknown.
        order: Patches by rank, the first one matters most.
        count: Top-ranked patches that are knocked out.
        batch: Images at a time.
        before: Logits of the whole network, if they are known.

    Raises:
        UserError: If there are fewer patches, or if the network's attention is not seen.
    """
    check_images(net, images)
    layout = token_layout(net, images)
    patches = layout.grid_size[0] * layout.grid_size[1]
    if whole("count", count) > patches:
        raise UserError(f"count must be in 1..{patches}, got {count}")
    check_order(order, len(images), patches)
    prefix, tokens = layout.num_prefix_tokens, layout.num_tokens
    top = token_mask(tokens, order[:, :count].expand(len(images), -1).to(images.device) + prefix)
    edges = top[:, None, :] & ~torch.eye(tokens, dtype=torch.bool, device=images.device)
    pool = None
    if layout.pools_by_attention:
        pool = top if layout.pool_include_prefix else top[:, prefix:]
    before = logits_by_batch(net, images, batch) if before is None else before
    return knockout_effect(before, logits_by_batch(net, images, batch, edges, pool), labels)


def knock_out_edges(batch: EvalBatch, before: Float[Tensor, "B classes"], seed: int = 0) -> dict[str, KnockoutEffect]:
    """Knock out attention edges between ground-truth regions, in all layers and heads.

    Edges lead from the pooled row to each region, and between the regions that the data set declares. Each query's
    control leads to as many random patches outside of all regions as its largest region has.

    Args:
        batch: Network and images with ground truth.
        before: Logits of the whole network.
        seed: Seed of the random patches.

    Returns:
        Effects by the edge's name, such as ``pooled row → object``, of edges that at least one image has.

    Raises:
        UserError: If there is no ground truth.
    """
    return {name: each for name, each in edge_effects(batch, before, seed).items() if not each.logit.isnan().all()}


def edge_effects(
    batch: EvalBatch, before: Float[Tensor, "B classes"], seed: int, first: int = 0
) -> dict[str, KnockoutEffect]:
    """Effects of :func:`knock_out_edges`, also those of edges that no image has, which are NaN.

    Args:
        batch: Network and images with ground truth.
        before: Logits of the whole network.
        seed: Seed of the random patches.
        first: Number of the first image, from 0, by which its random patches are chosen.

    Raises:
        UserError: If there is no ground truth.
    """
    if batch.ground_truth is None:
        raise UserError("edges can be knocked out between ground-truth regions only, and there is no ground truth")
    layout, effects = token_layout(batch.net, batch.images), {}
    for name, queries, keys in _edges(batch.ground_truth, seed, first):
        known = keys.any(dim=-1) if queries is None else keys.any(dim=-1) & queries.any(dim=-1)
        cut = _pooled_edges(layout, keys) if queries is None else (_edge_mask(layout, queries, keys), None)
        if cut is None:
            continue
        after = logits_by_batch(batch.net, batch.images, 128, *cut) if known.any() else before
        effect = knockout_effect(before, after, batch.labels)
        effects[name] = KnockoutEffect(*(torch.where(known, x, torch.nan) for x in (effect.logit, effect.accuracy)))
    return effects


def count_edges(batch: EvalBatch) -> int:
    """Number of the edges that are knocked out of a network; 0 without ground truth."""
    if batch.ground_truth is None:
        return 0
    layout = token_layout(batch.net, batch.images)
    edges = _edges(batch.ground_truth, 0, 0)
    return sum(queries is not None or _pooled_edges(layout, keys) is not None for _, queries, keys in edges)


def _edges(
    ground_truth: GroundTruthPatches, seed: int, first: int
) -> Iterator[tuple[str, PatchMask | None, PatchMask]]:
    """Name, queries (None for the pooled row) and keys of all edges, and of their controls."""
    regions, declared = ground_truth.regions, ground_truth.edges
    shape = next(iter(regions.values())).shape
    anywhere = torch.stack(list(regions.values())).any(dim=0)
    shuffled = random_maps((shape[0], shape[1]), seed, first).to(anywhere.device).masked_fill(anywhere, -1.0)
    rank = shuffled.argsort(dim=-1, descending=True).argsort(dim=-1)

    def control(keys: list[PatchMask]) -> PatchMask:
        size = torch.stack([region.sum(dim=-1) for region in keys]).amax(dim=0)
        possible = size <= (~anywhere).sum(dim=-1)
        return (rank < size[:, None]) & possible[:, None]

    for name, keys in regions.items():
        yield f"{POOLED_ROW} → {region_title(name)}", None, keys
    yield f"{POOLED_ROW} → {CONTROL}", None, control(list(regions.values()))
    for query, key in declared:
        yield f"{region_title(query)} → {region_title(key)}", regions[query], regions[key]
    for query in dict.fromkeys(query for query, _ in declared):
        keys = [regions[key] for other, key in declared if other == query]
        yield f"{region_title(query)} → {CONTROL}", regions[query], control(keys)


def _edge_mask(layout: TokenLayout, queries: PatchMask, keys: PatchMask) -> Bool[Tensor, "B N N"]:
    prefix = layout.num_prefix_tokens
    return F.pad(queries, (prefix, 0)).unsqueeze(-1) & F.pad(keys, (prefix, 0)).unsqueeze(-2)


def _pooled_edges(
    layout: TokenLayout, keys: PatchMask
) -> tuple[Bool[Tensor, "B N N"] | None, Bool[Tensor, "B pooled"] | None] | None:
    """Edges from what the network pools, or tokens of its attention pool; None for a mean, which has no edges."""
    prefix = layout.num_prefix_tokens
    tokens = F.pad(keys, (prefix, 0))
    if layout.pools_by_attention:
        return None, tokens if layout.pool_include_prefix else tokens[:, prefix:]
    pooled = torch.zeros_like(tokens)
    if layout.global_pool.startswith("token"):
        pooled[:, 0] = True
    elif layout.global_pool == "prefix":
        pooled[:, :prefix] = True
    else:
        return None
    return pooled.unsqueeze(-1) & tokens.unsqueeze(-2), None


def ablate_heads(batch: EvalBatch, before: Float[Tensor, "B classes"]) -> dict[tuple[int, int], KnockoutEffect]:
    """Ablate each head, one at a time.

    Args:
        batch: Network and images.
        before: Logits of the whole network.

    Returns:
        Effects by layer and head, both from 0.
    """
    with torch.no_grad(), record(batch.net) as recording:
        batch.net(batch.images[:1])
    effects = {}
    for number, layer in enumerate(recording):
        for head in range(layer.calls[0].q.shape[1]):
            with ablate(batch.net, {number: [head]}):
                after = logits_by_batch(batch.net, batch.images)
            effects[number, head] = knockout_effect(before, after, batch.labels)
    return effects
