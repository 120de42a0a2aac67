"""Attention knock-out and head ablation, the causal test of what a map shows.

A map shows where a token attends. Whether that matters is tested by removing the edge: it is masked in the running
network, the softmax renormalises over the remaining keys, and the change of the output is the edge's effect.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.checks import indices, whole
from vit_attn.attention_maps.recording.inputs import count_images
from vit_attn.attention_maps.recording.intervention import AttentionIntervention
from vit_attn.attention_maps.recording.network_checks import attends_in_windows
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.errors import UserError

Tokens = Sequence[int] | Int64[Tensor, "_"] | Int64[Tensor, "B _"]
"""Token indices, prefix tokens first: the same for all images, or one row per image."""
Cut = Bool[Tensor, "N N"] | Bool[Tensor, "B N N"]


class Knockout(NamedTuple):
    """Arguments of one :func:`knockout`."""

    cut: Cut | None = None
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    pool: Bool[Tensor, "_ pooled"] | None = None


@contextlib.contextmanager
def knockout(
    net: nn.Module,
    cut: Cut | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    pool: Bool[Tensor, "_ pooled"] | None = None,
) -> Iterator[None]:
    """Remove edges of a network's attention inside the ``with`` block; the softmax is over the remaining keys.

    Every network that ``record`` takes can be cut. Knock-outs, ablations and recordings of one network may be nested in
    any order: cuts add up, and the recorded weights are those that the network used. A query without any key left gives
    zeros, and its recorded weights are zeros. Of ``top_k`` attention the best keys are chosen before the cut. Only
    forwards of the thread, or asyncio task, that opened the block are affected.

    Args:
        net: A vision transformer; it is left as it was.
        cut: True where a query (row) may not attend to a key (column), over all tokens, prefix tokens first; one for
            all images, or one per image. :func:`edges` makes it.
        layers: Indices of the layers that are cut, -1 is the last; by default all.
        heads: Indices of the heads that are cut in these layers; by default all.
        pool: True where an attention pool may not attend, over the tokens that it pools, for all images or each. The
            pool is no layer: ``cut``, ``layers`` and ``heads`` do not apply to it.

    Raises:
        UserError: If nothing is cut, if a layer, head or token does not exist, if an attention was not seen, or if the
            network was run otherwise than by ``net(images)``, or not at all.

    References:
        Geva 2023, "Dissecting recall of factual associations", arXiv 2304.14767, section 4 ("attention knockout").
    """
    with knockouts(net, [Knockout(cut, layers, heads, pool)]):
        yield


@contextlib.contextmanager
def knockouts(net: nn.Module, parts: Sequence[Knockout]) -> Iterator[None]:
    """Make several knock-outs as nested :func:`knockout` blocks do, in the time of one.

    Args:
        net: A vision transformer; it is left as it was.
        parts: Arguments of each knock-out.

    Raises:
        UserError: As for :func:`knockout`.
    """
    intervention = _Knockouts(net, parts)
    with intervention.attached():
        yield
    intervention.check_called()


@contextlib.contextmanager
def ablate(net: nn.Module, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Set the output of chosen heads to zero inside the ``with`` block; their weights and relevance are zero as well.

    Args:
        net: A vision transformer; it is left as it was.
        heads: Head indices by layer index; -1 is the last layer.

    Raises:
        UserError: If a layer or head does not exist, if an attention was not seen, or if the network was run otherwise
            than by ``net(images)``, or not at all.

    References:
        Michel 2019, "Are sixteen heads really better than one?", arXiv 1905.10650, section 2.
    """
    intervention = _Ablation(net, heads)
    with intervention.attached():
        yield
    intervention.check_called()


def edges(num_tokens: int, queries: Tokens, keys: Tokens) -> Cut:
    """Make a cut of all edges from the queries to the keys; one per image if either is.

    >>> edges(3, [0], [1, 2]).int().tolist()
    [[0, 1, 1], [0, 0, 0], [0, 0, 0]]

    Raises:
        UserError: If a token does not exist.
    """
    return token_mask(num_tokens, queries).unsqueeze(-1) & token_mask(num_tokens, keys).unsqueeze(-2)


def token_mask(num_tokens: int, tokens: Tokens) -> Bool[Tensor, "*B N"]:
    """Make a mask over all tokens that is true at the given indices; negative ones count from the last.

    Raises:
        UserError: If a token does not exist.
    """
    count = whole("num_tokens", num_tokens)
    if isinstance(tokens, Tensor) and tokens.ndim == 2:
        checked = [indices("tokens", row, count) for row in tokens]
        chosen = torch.tensor(checked, dtype=torch.int64, device=tokens.device).reshape(tokens.shape)
    else:
        device = tokens.device if isinstance(tokens, Tensor) else None
        chosen = torch.tensor(indices("tokens", tokens, count), dtype=torch.int64, device=device)
    mask = torch.zeros(*chosen.shape[:-1], count, dtype=torch.bool, device=chosen.device)
    return mask.scatter(-1, chosen, True)


class _Knockouts(AttentionIntervention):
    def __init__(self, net: nn.Module, parts: Sequence[Knockout]) -> None:
        super().__init__(net, None)
        names = list(self.layer_indices)
        self.layer_indices = {}
        self.parts: dict[str, list[Knockout]] = {}
        """Knock-outs of each layer, and of the pool, by the name of its module."""
        for part in parts:
            chosen = range(len(names)) if part.layers is None else indices("layers", part.layers, len(names))
            self.counts_from_last |= any(each < 0 for each in ([] if part.layers is None else part.layers))
            self.layer_indices |= {names[index]: index for index in chosen}
            self._add(part, [names[index] for index in chosen])
        self.targets = set(self.parts)
        self.most_removed = {id(cut): _most_removed(cut) for part in parts for cut in (part.cut, part.pool)}

    def _add(self, part: Knockout, layers: Sequence[str]) -> None:
        _check_cut("cut", part.cut, (2, 3))
        _check_cut("pool", part.pool, (2,))
        if part.cut is None and part.pool is None:
            raise UserError("knockout needs a cut, or a pool to cut")
        if part.pool is not None and self.pool_name is None:
            raise UserError(f"{type(self.net).__name__} does not pool by attention, so no pool can be cut")
        pool = [] if part.pool is None else [self.pool_name]
        for name in [*([] if part.cut is None else layers), *pool]:
            self.parts.setdefault(str(name), []).append(part)

    def apply(self, name: str, call: SDPACall) -> None:
        if len(call.q) != count_images(self.images):
            raise UserError(
                f"{name} of {type(self.net).__name__} attends within windows, where a cut of tokens has no meaning: "
                "ablate its heads"
            )
        for part in self.parts[name]:
            is_pool = name == self.pool_name
            heads = None if part.heads is None or is_pool else indices("heads", part.heads, call.q.shape[1])
            cut: Any = part.pool if is_pool else part.cut
            call.mask_out(self._removed_edges(cut, name, call), heads, self.most_removed[id(cut)])

    def _removed_edges(self, cut: Tensor, name: str, call: SDPACall) -> Bool[Tensor, "_ _ M N"]:
        cut = cut.to(call.q.device)
        is_pool = name == self.pool_name
        cut = cut[:, None, None].expand(-1, -1, call.q.shape[2], -1) if is_pool else cut.reshape(-1, 1, *cut.shape[-2:])
        cut = cut if self.order is None else self.order.spread(cut, call)
        shape = (call.q.shape[0], call.q.shape[2], call.k.shape[2])  # cut is (B or 1, 1, M, N)
        if cut.shape[2:] != shape[1:] or cut.shape[0] not in (1, shape[0]):
            raise UserError(
                f"the cut is of images, queries and keys {(cut.shape[0], *cut.shape[2:])}, but {name} has {shape}"
            )
        return cut


class _Ablation(AttentionIntervention):
    def __init__(self, net: nn.Module, heads: Mapping[int, Sequence[int]]) -> None:
        if not isinstance(heads, Mapping):
            raise UserError(f"heads must be listed by layer, as {{-1: [0, 3]}}, got {type(heads).__name__}")
        super().__init__(net, list(heads))
        self.heads: dict[int, list[int]] = {}
        for layer, chosen in heads.items():
            if not isinstance(chosen, Iterable):
                raise UserError(f"heads must be a list for each layer, as {{{layer}: [{chosen}]}}, got {chosen!r}")
            self.heads.setdefault(layer % self.num_layers, []).extend(chosen)

    def apply(self, name: str, call: SDPACall) -> None:
        if len(call.q) != count_images(self.images) and not attends_in_windows(self.net):
            raise UserError(
                f"{name} of {type(self.net).__name__} attends in {len(call.q)} parts for {count_images(self.images)} "
                "images, so it is not known which axis is that of its heads"
            )
        call.zero_out(_head_mask(call, self.heads[self.layer_indices[name]]))


def _head_mask(call: SDPACall, heads: Sequence[int]) -> Bool[Tensor, "1 H 1 1"]:
    """Make a mask that is true for these heads."""
    count = call.q.shape[1]
    chosen = torch.zeros(count, dtype=torch.bool, device=call.q.device)
    chosen[indices("heads", heads, count)] = True
    return chosen[None, :, None, None]


def _most_removed(cut: Tensor | None) -> int:
    """Upper bound of the edges that one query loses; the host does not wait for the numbers of a device."""
    if cut is None or not cut.numel():
        return 0
    return int(cut.sum(dim=-1).max()) if cut.device.type == "cpu" else cut.shape[-1]


def _check_cut(name: str, cut: Any, axes: tuple[int, ...]) -> None:
    if cut is None or (isinstance(cut, Tensor) and cut.dtype == torch.bool and cut.ndim in axes):
        return
    found = f"{cut.dtype} {tuple(cut.shape)}" if isinstance(cut, Tensor) else type(cut).__name__
    shape = "(tokens, tokens), or one an image" if 3 in axes else "(images or 1, pooled tokens)"
    raise UserError(f"{name} must be a tensor of truth values {shape}, got {found}")
