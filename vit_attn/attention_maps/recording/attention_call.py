"""Recorded inputs of one attention call, from which its weights are computed on request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vit_attn.attention_maps.precision import exact, product

WORKSPACE = 2**18
"""Weights that are computed at once where a part will do: 1 MiB in float32, which fits a cache."""


@dataclass(frozen=True)
class AttentionCall:
    """Inputs of one attention call, over ``M`` queries and ``N`` keys."""

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
    given: Float[Tensor, "B H M N"] | None = None
    """Weights that the network computed itself; queries and keys are then zeros."""

    def weights(self) -> Float[Tensor, "B H M N"]:
        """Attention weight of each key (column) for each query (row), in float32 whatever the network's dtype."""
        with exact(), torch.no_grad():
            if self.given is not None:
                return _in_float32(self.given)
            scores = self._scores()
            # on a CPU fresh memory costs as much as the softmax
            weights = torch.softmax(scores, dim=-1, out=scores if scores.device.type == "cpu" else None)
            if self.hard:
                weights = torch.zeros_like(weights).scatter_(-1, weights.argmax(dim=-1, keepdim=True), 1.0)
            return weights if self.zero_rows is None else weights.masked_fill_(self.zero_rows, 0.0)

    def mix(self, rows: Float[Tensor, "B Q M"]) -> Float[Tensor, "B Q N"]:
        """Mean over heads of ``rows @ weights``, in float32, a few images and heads at a time."""
        mixed = rows.new_zeros(*rows.shape[:2], self.k.shape[2])
        rows = rows.unsqueeze(1) / self.q.shape[1]
        divides_rows = self.q.device.type == "cpu" and not self.hard and self.zero_rows is self.given is None
        with exact(), torch.no_grad():
            for images, heads in self.parts(by_head=True):
                part, chosen = self.part(images, heads), rows[images]
                found = part._mix_undivided(chosen) if divides_rows else None
                divides_rows = found is not None
                mixed[images] += product(chosen, part.weights()).sum(dim=1) if found is None else found
        return mixed

    def _mix_undivided(self, rows: Float[Tensor, "B 1 Q M"]) -> Float[Tensor, "B Q N"] | None:
        """Sum over heads of ``rows @ weights``, where rows, not weights, are divided by the softmax's denominators.

        None where an exponential may overflow or vanish, as none is scaled by the largest of its row.
        """
        exponentials = self._scores().exp_()
        sums = exponentials.sum(dim=-1)
        least, most = sums.aminmax()
        if not (least > 1e-20 and most < 1e30):
            return None
        divided = (rows / sums.unsqueeze(2)).flatten(0, 1)
        return product(divided, exponentials.flatten(0, 1)).unflatten(0, sums.shape[:2]).sum(dim=1)

    def _scores(self) -> Float[Tensor, "B H M N"]:
        """Scores with the mask; -inf where attention is not allowed."""
        q, k = self.q.float().flatten(0, 1), self.k.float().flatten(0, 1)  # of one image, views
        scores = product(q * self.scale, k.mT).unflatten(0, self.q.shape[:2])
        if self.mask is None:
            return scores
        return scores.masked_fill_(~self.mask, -torch.inf) if self.mask.dtype == torch.bool else scores.add_(self.mask)

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
            given=select(self.given, True),
        )

    def on_host(self) -> "AttentionCall":
        """Copy the call to the host's memory, without its output."""

        def copy(x: Tensor | None) -> Any:
            if x is None:
                return None
            own = x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]  # before broadcasting
            return own.cpu().expand(x.shape)

        q, k, v, mask, zero_rows, given = map(copy, (self.q, self.k, self.v, self.mask, self.zero_rows, self.given))
        return replace(self, q=q, k=k, v=v, mask=mask, output=None, zero_rows=zero_rows, given=given)

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


def _in_float32(weights: Float[Tensor, "B H M N"]) -> Float[Tensor, "B H M N"]:
    """Copy weights in float32; those of 16 bits, whose rows only sum to about 1, are divided by the sum."""
    copied = weights.to(torch.float32, copy=True)
    if torch.finfo(weights.dtype).bits > 16:
        return copied
    return copied.div_(copied.sum(dim=-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny))
