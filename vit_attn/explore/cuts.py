"""Cuts of a network's attention as a person asks for them: patches, edges and heads."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from vit_attn.attention_maps import ablate
from vit_attn.attention_maps.recording.knockout import Knockout, knockouts
from vit_attn.attention_maps.recording.layout import HasPooling, is_attention_pool
from vit_attn.attention_maps.recording.token_layout import pooling_row
from vit_attn.errors import UserError


@dataclass(frozen=True)
class PatchCut:
    """Removal of a token as a key: no other token attends to it, in any layer and head; an attention pool neither.

    Args:
        token: Index of the token, prefix tokens first.
    """

    token: int


@dataclass(frozen=True)
class EdgeCut:
    """Removal of the attention from a query to a key.

    Args:
        query: Index of a token; None for what the network pools: CLS, all prefix tokens, the query of an attention
            pool, or for a mean the rows of all tokens that are averaged.
        key: Index of a token.
        layer: Index of the layer, from 0; None for all.
        head: Index of the head, from 0; None for all.
    """

    query: int | None
    key: int
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class HeadCut:
    """Ablation of a head: its output is zero.

    Args:
        layer: Index of the layer, from 0.
        head: Index of the head, from 0.
    """

    layer: int
    head: int


Cut = PatchCut | EdgeCut | HeadCut


@dataclass(frozen=True)
class EdgeGroup:
    """Edges that are cut in the same layers and heads, by one :func:`knockout`.

    Args:
        layers: Indices of the layers; None for all.
        heads: Indices of the heads; None for all.
        patches: Tokens to which no other token may attend.
        edges: Pairs of queries and keys.
        pooled: Keys that are removed from an attention pool, as indices of the tokens that it pools.
    """

    layers: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    patches: tuple[int, ...] = ()
    edges: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    pooled: tuple[int, ...] = ()

    def mask(self, tokens: int) -> Bool[Tensor, "N N"] | None:
        """Mask of all edges over all tokens; None if only a pool is cut."""
        if not self.patches and not self.edges:
            return None
        mask = torch.zeros(tokens, tokens, dtype=torch.bool, device="cpu")
        mask[:, list(self.patches)] = True
        mask.fill_diagonal_(False)  # a patch still attends to itself
        for queries, keys in self.edges:
            mask[torch.tensor(queries)[:, None], list(keys)] = True
        return mask


def pooled_tokens(layout: HasPooling) -> list[int]:
    """Tokens whose rows the network's output reads: CLS, all prefix tokens, or those of a mean.

    Raises:
        UserError: If it is not known what the network pools.
    """
    row = pooling_row(layout)
    if row is None:
        raise UserError("it is not known which tokens this network pools: name a token as the query")
    return row.nonzero()[:, 0].tolist()


def first_pooled(layout: HasPooling) -> int:
    """First token that an attention pool reads."""
    return 0 if layout.pool_include_prefix else layout.num_prefix_tokens


@contextlib.contextmanager
def cutting(net: nn.Module, cuts: Sequence[Cut], layout: HasPooling) -> Iterator[None]:
    """Make the cuts in the network inside the ``with`` block, as nested :func:`knockout` and :func:`ablate` blocks do.

    Edges that are cut in the same layers and heads share one knock-out, so the order of cuts does not matter.

    Args:
        net: A vision transformer; it is left as it was.
        cuts: The cuts; none leave the network as it is.
        layout: Recording of the uncut network, or its token layout.

    Raises:
        UserError: As for :func:`knockout` and :func:`ablate`; if a token does not exist.
    """
    tokens = [token for cut in cuts for token in _tokens(cut)]
    if tokens and max(tokens) >= layout.num_tokens:
        raise UserError(f"cuts must be of tokens in 0..{layout.num_tokens - 1} of this picture, got {max(tokens)}")
    with contextlib.ExitStack() as stack:
        if groups := edge_groups(cuts, layout):
            stack.enter_context(knockouts(net, [_knockout(group, layout) for group in groups]))
        if heads := ablated_heads(cuts):
            stack.enter_context(ablate(net, heads))
        yield


def _tokens(cut: Cut) -> list[int]:
    if isinstance(cut, HeadCut):
        return []
    if isinstance(cut, PatchCut):
        return [cut.token]
    return [cut.key] if cut.query is None else [cut.query, cut.key]


def _knockout(group: EdgeGroup, layout: HasPooling) -> Knockout:
    pool = None
    if group.pooled:
        pool = torch.zeros(1, layout.num_tokens - first_pooled(layout), dtype=torch.bool, device="cpu")
        pool[:, list(group.pooled)] = True
    return Knockout(group.mask(layout.num_tokens), group.layers, group.heads, pool)


def ablated_heads(cuts: Sequence[Cut]) -> dict[int, list[int]]:
    """Heads that are ablated, by layer."""
    heads: dict[int, list[int]] = {}
    for layer, head in sorted({(cut.layer, cut.head) for cut in cuts if isinstance(cut, HeadCut)}):
        heads.setdefault(layer, []).append(head)
    return heads


def edge_groups(cuts: Sequence[Cut], layout: HasPooling) -> list[EdgeGroup]:
    """Group patches and edges by the layers and heads in which they are cut, all layers and heads first."""
    by_pool = is_attention_pool(layout.global_pool)
    first = first_pooled(layout)
    patches = sorted({cut.token for cut in cuts if isinstance(cut, PatchCut)})
    of_head: dict[tuple[int | None, int | None], dict[tuple[int, ...], set[int]]] = {}
    pooled = {token - first for token in patches if token >= first} if by_pool else set()
    for cut in cuts:
        if not isinstance(cut, EdgeCut):
            continue
        if cut.query is None and by_pool:
            pooled.add(cut.key - first)
            continue
        queries = tuple(pooled_tokens(layout)) if cut.query is None else (cut.query,)
        of_head.setdefault((cut.layer, cut.head), {}).setdefault(queries, set()).add(cut.key)
    pairs = {
        at: tuple((query, tuple(sorted(keys))) for query, keys in sorted(of.items())) for at, of in of_head.items()
    }
    everywhere = EdgeGroup(None, None, tuple(patches), pairs.pop((None, None), ()), tuple(sorted(pooled)))
    groups = [everywhere] if patches or pooled or everywhere.edges else []
    by_heads = _merged([(layer, pair, head) for (layer, head), pair in pairs.items()])
    by_layers = _merged([(heads, pair, layer) for (layer, pair), heads in by_heads.items()])
    return groups + [EdgeGroup(layers, heads, edges=pair) for (heads, pair), layers in by_layers.items()]


def _merged(entries: Sequence[tuple[Any, Any, int | None]]) -> dict[tuple[Any, Any], tuple[int, ...] | None]:
    """Collect the numbers (layers or heads) of equal entries; None, which stands for all, makes others superfluous."""
    found: dict[tuple[Any, Any], set[int] | None] = {}
    for one, other, number in entries:
        numbers = found.setdefault((one, other), set())
        found[one, other] = None if number is None or numbers is None else numbers | {number}
    return {key: None if numbers is None else tuple(sorted(numbers)) for key, numbers in found.items()}
