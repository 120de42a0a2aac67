"""``with knockout(net, cut): net(images)``: the network without chosen edges from query to key, the causal arbiter.

A map says where a token looks. Whether that matters is seen by taking it away: the edge is masked in the running
network, the rest of the row shares what it had, and the change of the output is the edge's effect.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vit_attn.attention_maps.watch import Asked, Watcher
from vit_attn.errors import UserError

Tokens = Sequence[int] | Int64[Tensor, "_"] | Int64[Tensor, "B _"]
"""Token indices, prefix tokens first: the same for all images, or a row an image."""
Cut = Bool[Tensor, "N N"] | Bool[Tensor, "B N N"]


@contextlib.contextmanager
def knockout(
    net: nn.Module,
    cut: Cut | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    pool: Bool[Tensor, "_ pooled"] | None = None,
) -> Iterator[None]:
    """Cut edges of a network's attention inside the ``with`` block; what is left of a row is shared out anew.

    Every network that ``record`` sees can be cut, and inside ``record`` the recorded weights are those of the cut
    network. A row without any key gives zeros, whatever its recorded weights say. Of ``top_k`` attention the best keys
    are chosen before the cut.

    Args:
        net: A vision transformer; it is left as it was.
        cut: True where a query (row) may not attend to a key (column), over all tokens, prefix tokens first; one for
            all images, or one an image. :func:`edges` makes it.
        layers: Which layers are cut, -1 is the last; by default all.
        heads: Which heads of them; by default all.
        pool: True where a pool by attention may not attend, over the tokens that it pools, for all images or each. It
            is no layer, and ``cut``, ``layers`` and ``heads`` leave it alone.

    Raises:
        UserError: If nothing is cut, if a layer, head or token does not exist, or if an attention was not seen.

    References:
        Geva 2023, "Dissecting recall of factual associations", arXiv 2304.14767, section 4 ("attention knockout").
    """
    if cut is None and pool is None:
        raise UserError("knockout needs a cut, or a pool to cut")
    with _Knockout(net, cut, layers, heads, pool).watching():
        yield


@contextlib.contextmanager
def ablate(net: nn.Module, heads: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Let chosen heads give zeros inside the ``with`` block.

    Args:
        net: A vision transformer; it is left as it was.
        heads: Heads by layer; -1 is the last layer.

    Raises:
        UserError: If a layer or head does not exist, or if an attention was not seen.

    References:
        Michel 2019, "Are sixteen heads really better than one?", arXiv 1905.10650, section 2.
    """
    with _Ablation(net, heads).watching():
        yield


def edges(num_tokens: int, queries: Tokens, keys: Tokens) -> Cut:
    """True from each of the queries to each of the keys; per image where either is.

    >>> edges(3, [0], [1, 2]).int().tolist()
    [[0, 1, 1], [0, 0, 0], [0, 0, 0]]

    Raises:
        UserError: If a token does not exist.
    """
    return members(num_tokens, queries).unsqueeze(-1) & members(num_tokens, keys).unsqueeze(-2)


def members(num_tokens: int, tokens: Tokens) -> Bool[Tensor, "*B N"]:
    """Which of all tokens are named; negative indices count from the last.

    Raises:
        UserError: If a token does not exist.
    """
    indices = torch.as_tensor(tokens, dtype=torch.int64)
    if not ((indices >= -num_tokens) & (indices < num_tokens)).all():
        raise UserError(f"tokens must be in 0..{num_tokens - 1}, got {indices.unique().tolist()}")
    named = torch.zeros(*indices.shape[:-1], num_tokens, dtype=torch.bool, device=indices.device)
    return named.scatter(-1, indices % num_tokens, True)


class _Surgeon(Watcher):
    """A watcher that changes layers, by number, and insists on having seen them."""

    def __init__(self, net: nn.Module, layers: Sequence[int] | None) -> None:
        super().__init__(net)
        names = list(self.names.values())
        self.pool_name = names.pop() if getattr(net, "global_pool", "") in ("map", "prr") else None
        count = len(names)
        if outside := [layer for layer in layers or () if not -count <= layer < count]:
            raise UserError(f"layers must be in 0..{count - 1}, got {outside}")
        numbers = range(count) if layers is None else [layer % count for layer in layers]
        self.numbers = {names[number]: number for number in numbers}
        self.wanted = set(self.numbers)
        self.seen: set[str] = set()

    def begin(self) -> None:
        self.seen = set()

    def attend(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        if name not in self.wanted:
            return answer()
        self.seen.add(name)
        return self.change(name, asked, answer)

    def change(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        """What a chosen attention gives instead."""
        raise NotImplementedError

    def end(self, images: Tensor, output: Any) -> None:
        if unseen := sorted(self.wanted - self.seen):
            raise UserError(
                f"{len(unseen)} attention modules of {type(self.net).__name__} were not seen calling "
                f"scaled_dot_product_attention, so nothing was cut there: {', '.join(unseen)}"
            )

    def checked_heads(self, heads: Sequence[int], count: int) -> list[int]:
        if outside := [head for head in heads if not -count <= head < count]:
            raise UserError(f"heads must be in 0..{count - 1}, got {outside}")
        return [head % count for head in heads]


class _Knockout(_Surgeon):
    def __init__(
        self,
        net: nn.Module,
        cut: Cut | None,
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        pool: Bool[Tensor, "_ pooled"] | None,
    ) -> None:
        super().__init__(net, layers)
        if cut is None:
            self.wanted = set()
        if pool is not None:
            if self.pool_name is None:
                raise UserError(f"{type(net).__name__} does not pool by attention, so no pool can be cut")
            self.wanted = self.wanted | {self.pool_name}
        self.cut, self.heads, self.pool = cut, heads, pool

    def change(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        in_pool = name == self.pool_name
        given: Any = self.pool if in_pool else self.cut
        cut = given.to(asked.q.device)
        cut = (
            cut[:, None, None].expand(-1, -1, asked.q.shape[2], -1) if in_pool else cut.reshape(-1, 1, *cut.shape[-2:])
        )  # (B or 1, 1, M, N)
        shape = (asked.q.shape[0], asked.q.shape[2], asked.k.shape[2])
        if cut.shape[2:] != shape[1:] or cut.shape[0] not in (1, shape[0]):
            raise UserError(
                f"the cut is of images, queries and keys {(cut.shape[0], *cut.shape[2:])}, but {name} has {shape}"
            )
        if self.heads is not None and not in_pool:
            count = asked.q.shape[1]
            chosen = torch.zeros(count, dtype=torch.bool, device=cut.device)
            chosen[self.checked_heads(self.heads, count)] = True
            cut = cut & chosen[:, None, None]
        return without(asked, cut)


class _Ablation(_Surgeon):
    def __init__(self, net: nn.Module, heads: Mapping[int, Sequence[int]]) -> None:
        super().__init__(net, list(heads))
        count = len(self.names) - (self.pool_name is not None)
        self.heads: dict[int, list[int]] = {}
        for layer, chosen in heads.items():
            self.heads.setdefault(layer % count, []).extend(chosen)

    def change(self, name: str, asked: Asked, answer: Callable[[], Tensor]) -> Tensor:
        output = answer()
        off = torch.zeros(output.shape[1], dtype=torch.bool, device=output.device)
        off[self.checked_heads(self.heads[self.numbers[name]], len(off))] = True
        return output.masked_fill(off[:, None, None], 0.0)


def without(asked: Asked, cut: Bool[Tensor, "_ _ M N"]) -> Float[Tensor, "B H M Dv"]:
    """What an attention gives without these edges; rows that have no key left give zeros."""
    mask, allowed, bias = asked.mask, ~cut, torch.zeros((), dtype=asked.q.dtype, device=cut.device)
    if mask is not None and mask.dtype == torch.bool:
        allowed = allowed & mask
    elif mask is not None:
        allowed, bias = allowed & (mask > -torch.inf), mask
    empty = ~allowed.any(dim=-1, keepdim=True)
    kept = allowed | empty  # no kernel has to divide by nothing: what an empty row gives is replaced
    if asked.hard or mask is bias:
        kept = torch.where(kept, torch.where(empty, 0.0, bias), -torch.inf)
    return replace(asked, mask=kept).answer().masked_fill(empty, 0.0)
