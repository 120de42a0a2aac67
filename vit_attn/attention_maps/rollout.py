"""What attention alone says about where a token looks: one layer's rows, and rows rolled out through all layers."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.record import Recording
from vit_attn.errors import UserError

FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(dim=1),
    "max": lambda maps: maps.amax(dim=1),
    "min": lambda maps: maps.amin(dim=1),
}


def fuse(weights: Float[Tensor, "B H N N"], fusion: str = "mean") -> Float[Tensor, "B N N"]:
    """One map from all heads by their mean, maximum or minimum; only under the mean do rows still sum to 1."""
    if fusion not in FUSIONS:
        raise UserError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
    if weights.shape[-1] != weights.shape[-2]:
        raise UserError(f"only attention of all tokens to all tokens can be mapped, got weights {tuple(weights.shape)}")
    return FUSIONS[fusion](weights)


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
    return recording.query_rows(queries) @ fuse(recording[layer].weights(), fusion)


def rollout(recording: Recording, queries: Sequence[int] | None = None, fusion: str = "mean") -> Float[Tensor, "B Q N"]:
    """Attention rollout: how much of each input token reaches each query through all layers; rows sum to 1.

    Each layer is ½ attention + ½ identity, for the residual connection, with rows divided by their sum, and layers are
    multiplied. Only the wanted rows are propagated, from the last layer to the first, so the cost is O(L·N²) a row.
    It looks at attention only: values, MLPs and the class that was predicted have no say in it.

    Args:
        recording: Forwards of a network.
        queries: Token indices, prefix tokens first; by default the row that the network pools.
        fusion: How heads become one map: ``mean``, ``max`` or ``min``.

    References:
        Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv 2005.00928, section 3.
    """
    rows = recording.query_rows(queries)  # (1 or B, Q, N), grows to (B, Q, N)
    for layer in reversed(range(len(recording))):
        fused = fuse(recording[layer].weights(), fusion)
        share = rows / (1 + fused.sum(dim=-1)).unsqueeze(-2)  # of each token: over the sum of its row and its identity
        rows = share @ fused + share
    return rows
