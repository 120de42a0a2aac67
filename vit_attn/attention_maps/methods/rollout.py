"""Class-agnostic maps from attention alone: rows of one layer, and attention rollout through all layers."""

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
"""One row per query, over all tokens; a batch of one stands for rows that all images share."""

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(dim=1),
    "max": lambda maps: maps.amax(dim=1),
    "min": lambda maps: maps.amin(dim=1),
}


def fuse(weights: Float[Tensor, "B H N N"], fusion: str = "mean") -> Float[Tensor, "B N N"]:
    """Fuse the maps of all heads by their mean, maximum or minimum; only rows of the mean still sum to 1."""
    check_fusion(fusion)
    check_weights(weights)
    return _fuse(weights, fusion)


def _fuse(weights: Tensor, fusion: str) -> Tensor:
    if weights.shape[-1] != weights.shape[-2]:
        raise UserError(f"only attention of all tokens to all tokens can be mapped, got weights {tuple(weights.shape)}")
    return FUSIONS[fusion](weights)


@in_float32
def raw_rows(
    recording: Recording, layer: int = -1, queries: Sequence[int] | None = None, fusion: str = "mean"
) -> Float[Tensor, "B Q N"]:
    """Attention rows of one layer, heads fused; earlier and later layers mix tokens too.

    Args:
        recording: Forwards of a network.
        layer: Index of the layer; -1 is the last.
        queries: Token indices, prefix tokens first; by default the row that the network pools.
        fusion: How heads are fused: ``mean``, ``max`` or ``min``.

    Raises:
        UserError: If the layer, a query or the fusion does not exist.
    """
    check_fusion(fusion)
    if queries is None and recording.global_pool != "token":
        return _propagate(recording[layer], recording.query_rows(), fusion, product)
    chosen = recording.token_indices([0] if queries is None else queries)
    return torch.cat(
        [FUSIONS[fusion](call.part(slice(None), queries=chosen).weights()) for call in recording[layer].calls]
    )


@in_float32
def rollout(
    recording: Recording, queries: Sequence[int] | None = None, fusion: str = "mean", discard: float = 0.0
) -> Float[Tensor, "B Q N"]:
    """Attention rollout: the part of each input token that reaches each query through all layers; rows sum to 1.

    Each layer is ½ attention + ½ identity, for the residual connection, with rows divided by their sum, and layers are
    multiplied. Only the requested rows are propagated, from the last layer to the first, at O(L·N²) per row.
    Rollout uses attention only: values, MLPs and the predicted class do not enter.

    Args:
        recording: Forwards of a network.
        queries: Token indices, prefix tokens first; by default the row that the network pools.
        fusion: How heads are fused: ``mean``, ``max`` or ``min``.
        discard: Fraction of the patches in [0, 1), those with the least attention in each row, whose attention is set
            to 0, rounded down to whole patches; a token's attention to itself and to prefix tokens stays.

    Raises:
        UserError: If a query or the fusion does not exist, or if the fraction is out of range.

    References:
        Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv 2005.00928, section 3.
    """
    discard = fraction("discard", discard)
    check_fusion(fusion)
    prefix = recording.num_prefix_tokens

    def step(rows: Tensor, fused: Tensor) -> Tensor:
        fused = discard_least(fused, discard, prefix) if discard else fused
        normalised = rows / (1 + fused.sum(dim=-1)).unsqueeze(-2)  # by each token's row sum of attention and identity
        return product(normalised, fused) + normalised

    rows = recording.query_rows(queries)
    for layer in reversed(list(recording)):
        if fusion == "mean" and not discard and all(call.zero_rows is None for call in layer.calls):
            rows = _mean_step(layer, rows)
        else:
            rows = _propagate(layer, rows, fusion, step)
    return rows


def discard_least(fused: Float[Tensor, "B N N"], fraction: float, prefix: int) -> Float[Tensor, "B N N"]:
    """Set the smallest patch columns of each row to 0, this fraction of them; the diagonal and the prefix stay."""
    ranked = fused.clone()
    ranked[..., :prefix] = torch.inf
    ranked.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    least = ranked.topk(int(fraction * (fused.shape[-1] - prefix)), dim=-1, largest=False).indices
    kept = fused.scatter(-1, least, 0.0)
    return torch.where(ranked.isinf(), fused, kept)  # where little else is left


def _propagate(
    layer: Layer, rows: Tensor, fusion: str, step: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "B Q N"]:
    """Propagate the rows of every image by one step through a layer's fused maps, a few images at a time."""

    def of_call(call: AttentionCall, first: int) -> Tensor:
        parts = []
        for images, _ in call.parts():
            chosen = rows if len(rows) == 1 else rows[first + images.start : first + images.stop]
            fused = _fuse(call.part(images).weights(), fusion)
            parts.append(step(chosen[: len(fused)], fused))
        return torch.cat(parts)

    return torch.cat([of_call(call, first) for call, first in _calls_with_offset(layer)])


def _mean_step(layer: Layer, rows: Tensor) -> Float[Tensor, "B Q N"]:
    """One step of mean rollout, ½ mean over heads + ½ identity, head by head: the fused map is never formed."""
    outputs, tokens = [], _selected_tokens(rows)
    for call, first in _calls_with_offset(layer):
        chosen = (rows if len(rows) == 1 else rows[first : first + len(call.q)]).expand(len(call.q), -1, -1)
        if tokens is None:
            attended = call.mix(chosen)
        else:  # only these tokens' own rows of attention are needed
            attended = call.part(slice(None), queries=tokens).weights().mean(dim=1)
        outputs.append((chosen + attended) / 2)
    return torch.cat(outputs)


def _selected_tokens(rows: Tensor) -> list[int] | None:
    """Tokens that one-hot rows select; None for other rows, and for rows that differ between images."""
    if len(rows) > 1 or rows.shape[1] == rows.shape[2]:
        return None
    best = rows[0].max(dim=-1)
    return best.indices.tolist() if bool((best.values == 1).all()) else None


def _calls_with_offset(layer: Layer) -> list[tuple[AttentionCall, int]]:
    """Calls of a layer, each with the index of its first image among those of all forwards."""
    starts, start = [], 0
    for call in layer.calls:
        starts.append((call, start))
        start += call.q.shape[0]
    return starts


def check_fusion(fusion: object) -> None:
    """Check that a fusion of heads exists.

    Raises:
        UserError: If it does not.
    """
    if not isinstance(fusion, str) or fusion not in FUSIONS:
        raise UserError(
            f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}{did_you_mean(str(fusion), FUSIONS)}"
        )


ROLLOUT = {
    "reference": "Abnar & Zuidema 2020, arXiv 2005.00928, section 3",
    "needs_gradients": False,
    "class_specific": False,
    "colour": "#0072b2",
}


@attribution_method(
    "last_layer",
    label="last layer",
    reference="Vaswani 2017, arXiv 1706.03762",
    needs_gradients=False,
    class_specific=False,
    drawn=True,
    colour="#000000",
)
def last_layer(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Attention rows of the last layer, heads averaged; of the attention pool for a network that has one."""
    recording = inputs.recording
    if queries is None and recording.pool is not None:
        return recording.query_rows()
    return raw_rows(recording, queries=queries)


@attribution_method("rollout", label="rollout, mean", drawn=True, **ROLLOUT)
def rollout_mean(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout with the mean over heads."""
    return rollout(inputs.recording, queries)


@attribution_method("rollout_max", label="rollout, max", **ROLLOUT, dashes="--")
def rollout_max(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout with the maximum over heads."""
    return rollout(inputs.recording, queries, fusion="max")


@attribution_method("rollout_min", label="rollout, min", **ROLLOUT, dashes=":")
def rollout_min(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout with the minimum over heads."""
    return rollout(inputs.recording, queries, fusion="min")


@attribution_method("rollout_discard", label="rollout, discard 0.5", **ROLLOUT | {"colour": "#56b4e9"})
def rollout_discard(inputs: AttributionInput, queries: Sequence[int] | None = None) -> Rows:
    """Rollout with the mean over heads, the less attended half of each row's patches discarded."""
    return rollout(inputs.recording, queries, discard=0.5)
