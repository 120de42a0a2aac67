"""Recorded inputs of one attention call, from which its weights are computed on request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vit_attn.attention_maps.precision import exact, product, products_are_full

WORKSPACE = 2**18
"""Weights that are computed at once where a part will do: 1 MiB in float32, which fits a cache."""


@dataclass(frozen=True)
class AttentionCall:
    """Inputs of one fused attention call, over ``M`` queries and ``N`` keys."""

    q: Float[Tensor, "B H M Dh"]
    k: Float[Tensor, "B H N Dh"]
    v: Float[Tensor, "B H N Dv"]
    mask: Float[Tensor, "B H M N"] | Bool[Tensor, "B H M N"] | None
    """Added to the scores, or True where attention is allowed; broadcast, not copied."""
    scale: float
    hard: bool = False
    """True if each query attends to its best key alone."""
    output: Float[Tensor, "B H M Dv"] | None = None
    """The output in the network's graph, if gradients are recorded."""
    zero_rows: Bool[Tensor, "B H M 1"] | None = None
    """Queries with zero output, ablated or without a key; their weights are zeros and do not sum to 1."""

    def weights(self) -> Float[Tensor, "B H M N"]:
        """Attention weight of each key (column) for each query (row), in float32 whatever the network's dtype."""
        with exact(), torch.no_grad():
            scores = self._scores()
            if self.mask is not None:
                boolean = self.mask.dtype == torch.bool
                scores = scores.masked_fill_(~self.mask, -torch.inf) if boolean else scores.add_(self.mask)
            # on a CPU fresh memory costs as much as the softmax
            weights = torch.softmax(scores, dim=-1, out=scores if scores.device.type == "cpu" else None)
            if self.hard:
                weights = torch.zeros_like(weights).scatter_(-1, weights.argmax(dim=-1, keepdim=True), 1.0)
            return weights if self.zero_rows is None else weights.masked_fill_(self.zero_rows, 0.0)

    def _scores(self) -> Tensor:
        q, k = self.q.float().flatten(0, 1), self.k.float().flatten(0, 1)  # of one image, views
        if products_are_full(q.device):
            scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=self.scale)
        else:
            scores = product(q, k.mT).mul_(self.scale)
        return scores.unflatten(0, self.q.shape[:2])

    def part(self, images: slice, heads: slice = slice(None), queries: Sequence[int] | None = None) -> "AttentionCall":
        """Select images, heads and queries of the call."""

        def select(x: Tensor | None, by_query: bool) -> Any:
            x = None if x is None else x[images, heads]
            return x[:, :, list(queries)] if x is not None and by_query and queries is not None else x

        return replace(
            self,
            q=select(self.q, True),
            k=select(self.k, False),
            v=select(self.v, False),
            mask=select(self.mask, True),
            output=select(self.output, True),
            zero_rows=select(self.zero_rows, True),
        )

    def on_host(self) -> "AttentionCall":
        """Copy the call to the host's memory, without its output."""

        def copy(x: Tensor | None) -> Any:
            if x is None:
                return None
            own = x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]  # before broadcasting
            return own.cpu().expand(x.shape)

        q, k, v, mask, zero_rows = map(copy, (self.q, self.k, self.v, self.mask, self.zero_rows))
        return replace(self, q=q, k=k, v=v, mask=mask, output=None, zero_rows=zero_rows)

    def parts(self, by_head: bool = False) -> Iterator[tuple[slice, slice]]:
        """Split the call into (images, heads) whose weights fit the workspace; by default all heads stay together.

        Args:
            by_head: Whether the heads of one image are split, too, where they do not fit.
        """
        batch, heads, queries, _ = self.q.shape
        per_head = queries * self.k.shape[2]
        images = max(1, WORKSPACE // (per_head * heads))
        step = heads if images > 1 or not by_head else min(heads, max(1, WORKSPACE // per_head))
        for start in range(0, batch, images):
            for head in range(0, heads, step):
                yield slice(start, start + images), slice(head, head + step)
