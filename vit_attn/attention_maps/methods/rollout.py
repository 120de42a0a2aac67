"""What attention alone says about where a token looks: one layer's rows, and rows rolled out through all layers."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.checks import check_weights, fraction
from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_method
from vit_attn.attention_maps.precision import in_float32, product
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.recording import Layer, Recording
from vit_attn.errors import UserError, did_you_mean

Rows = Float[Tensor, "_ Q N"]
"""One row a query, over all tokens; for one image stands one that all images share."""

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(dim=1),
    "max": lambda maps: maps.amax(dim=1),
    "min": lambda maps: maps.amin(dim=1),
}


def fuse(weights: Float[Tensor, "B H N N"], fusion: str = "mean") -> Float[Tensor, "B N N"]:
    """One map from all heads by their mean, maximum or minimum; only under the mean do rows still sum to 1."""
    if not isinstance(fusion, str) or fusion not in FUSIONS:
        raise UserError(
            f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}{did_you_mean(str(fusion), FUSIONS)}"
        )
    check_weights(weights)
    return _fused(weights, _known(fusion))


def _fused(weights: Tensor, fusion: str) -> Tensor:
    if weights.shape[-1] != weights.shape[-2]:
        raise UserError(f"only attention of all tokens to all tokens can be mapped, got weights {tuple(weights.shape)}")
    return FUSIONS[fusion](weights)


@in_float32
def raw_rows(
    recording: Recording, layer: int = -1, queries: Sequence[int] | None = None, fusion: str = "mean"
) -> Float[Tensor, "B Q N"]:
    """Where queries look in one layer, before and after which other layers mix tokens too.

    Args:
        recording: Forwards of a network.
        layer: Index of the layer; -1 is the last.
        queries: Token indices, prefix tokens first; by default the row that the network pools.
        fusion: How heads become one map: ``mean``, ``max`` or ``min``.
    """
    if queries is None and recording.global_pool != "token":
        return _through(recording[layer], recording.query_rows(), fusion, product)
    chosen = recording.token_indices([0] if queries is None else queries)
    fused = [
        FUSIONS[_known(fusion)](call.part(slice(None), queries=chosen).weights()) for call in recording[layer].calls
    ]
    return torch.cat(fused)


@in_float32
def rollout(
    recording: Recording, queries: Sequence[int] | None = None, fusion: str = "mean", discard: float = 0.0
) -> Float[Tensor, "B Q N"]:
    """Attention rollout: how much of each input token reaches each query through all layers; rows sum to 1.

    Each layer is ½ attention + ½ identity, for the residual connection, with rows divided by their sum, and layers are
    multiplied. Only the wanted rows are propagated, from the last layer to the first, so the cost is O(L·N²) a row.
    It looks at attention only: values, MLPs and the class that was predicted have no say in it.

    Args:
        recording: Forwards of a network.
        queries: Token indices, prefix tokens first; by default the row that the network pools.
        fusion: How heads become one map: ``mean``, ``max`` or ``min``.
        discard: Share of the patches, the least attended ones of each row, whose attention is set to 0; a token's
            attention to itself and to prefix tokens stays.

    Raises:
        UserError: If a query, the fusion or the share does not exist.

    References:
        Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv 2005.00928, section 3.
    """
    discard = fraction("discard", discard)
    _known(fusion)
    prefix = recording.num_prefix_tokens

    def step(rows: Tensor, fused: Tensor) -> Tensor:
        fused = without_least(fused, discard, prefix) if discard else fused
        share = rows / (1 + fused.sum(dim=-1)).unsqueeze(-2)  # of each token: over the sum of its row and its identity
        return product(share, fused) + share

    rows = recording.query_rows(queries)
    for layer in reversed(range(len(recording))):
        if fusion == "mean" and not discard and all(call.zero_rows is None for call in recording[layer].calls):
            rows = _mean_step(recording[layer], rows)
        else:
            rows = _through(recording[layer], rows, fusion, step)
    return rows


def without_least(fused: Float[Tensor, "B N N"], share: float, prefix: int) -> Float[Tensor, "B N N"]:
    """The map with the smallest share of each row's patch columns at 0; the diagonal and the prefix stay."""
    ranked = fused.clone()
    ranked[..., :prefix] = torch.inf
    ranked.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    least = ranked.topk(int(share * (fused.shape[-1] - prefix)), dim=-1, largest=False).indices
    kept = fused.scatter(-1, least, 0.0)
    return torch.where(ranked.isinf(), fused, kept)  # where little else is left


def _through(
    layer: Layer, rows: Tensor, fusion: str, step: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "B Q N"]:
    """One step of every image's rows through a layer's fused maps, a few images at a time."""
    _known(fusion)

    def of_call(call: AttentionCall, first: int) -> Tensor:
        parts = []
        for images, _ in call.parts():
            mine = rows if len(rows) == 1 else rows[first + images.start : first + images.stop]
            fused = _fused(call.part(images).weights(), fusion)
            parts.append(step(mine[: len(fused)], fused))
        return torch.cat(parts)

    return torch.cat([of_call(call, first) for call, first in with_first(layer)])


def _mean_step(layer: Layer, rows: Tensor) -> Float[Tensor, "B Q N"]:
    """Half of the rows through the mean over heads, whose rows sum to 1, half as they are; heads are never fused."""
    outputs = []
    for call, first in with_first(layer):
        batch, heads = call.q.shape[:2]
        mine = rows if len(rows) == 1 else rows[first : first + batch]
        mixed = mine.expand(batch, -1, -1).clone()
        asking = mine.expand(batch, -1, -1).unsqueeze(1) / heads  # the same rows of every head
        one = _one_token(mine)
        for images, head in call.parts(by_head=True):
            if one is None:
                each = product(asking[images], call.part(images, head).weights())
            else:  # the rows of tokens themselves: no other token's attention is asked for
                each = call.part(images, head, one).weights() / heads
            mixed[images] += each.sum(dim=1)
        outputs.append(mixed / 2)
    return torch.cat(outputs)


def _one_token(rows: Tensor) -> list[int] | None:
    """The tokens that the rows select, if they do nothing else and are the same for all images."""
    if len(rows) > 1 or rows.shape[1] == rows.shape[2]:
        return None
    best = rows[0].max(dim=-1)
    return best.indices.tolist() if bool((best.values == 1).all()) else None


def with_first(layer: Layer) -> list[tuple[AttentionCall, int]]:
    """Each call, and the number of its first image among those of all forwards."""
    starts, start = [], 0
    for call in layer.calls:
        starts.append((call, start))
        start += call.q.shape[0]
    return starts


def _known(fusion: str) -> str:
    if not isinstance(fusion, str) or fusion not in FUSIONS:
        raise UserError(
            f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}{did_you_mean(str(fusion), FUSIONS)}"
        )
    return fusion


ROLLOUT = {
    "reference": "Abnar & Zuidema 2020, arXiv 2005.00928, section 3",
    "needs_gradients": False,
    "class_specific": False,
}


@attribution_method(
    "last_layer",
    label="last layer",
    reference="Vaswani 2017, arXiv 1706.03762",
    needs_gradients=False,
    class_specific=False,
    drawn=True,
)
def last_layer(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Attention weights of the last layer, or of the pool by attention where the network has one."""
    recording = inputs.recording
    if queries is None and recording.pool is not None:
        return recording.query_rows()
    return raw_rows(recording, queries=queries)


@attribution_method("rollout", label="rollout, mean", drawn=True, **ROLLOUT)
def rollout_mean(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout of the mean over heads."""
    return rollout(inputs.recording, queries)


@attribution_method("rollout_max", label="rollout, max", **ROLLOUT)
def rollout_max(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout of the maximum over heads."""
    return rollout(inputs.recording, queries, fusion="max")


@attribution_method("rollout_min", label="rollout, min", **ROLLOUT)
def rollout_min(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout of the minimum over heads."""
    return rollout(inputs.recording, queries, fusion="min")


@attribution_method("rollout_discard", label="rollout, discard 0.5", **ROLLOUT)
def rollout_discard(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout without the half of each row's patches that is attended to least."""
    return rollout(inputs.recording, queries, discard=0.5)
