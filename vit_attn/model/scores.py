"""The details in which forms of attention differ: how well a key answers a query, and which keys are left.

Each affinity turns queries and keys into what fused attention is asked for: changed queries, changed keys, an additive
bias and a scale, so that ``softmax(q @ k.mT * scale + bias) @ v`` is its attention. To add a form, write one small
module and name it in ``AFFINITIES``.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Heads = Float[Tensor, "B H _ Dh"]
"""Queries, keys or values, each head's apart; there may be fewer queries than keys."""


class Scores(NamedTuple):
    """The scores ``q @ k.mT * scale + bias``, not yet multiplied out; the bias broadcasts to (B, H, M, N)."""

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None

    def multiplied_out(self) -> Float[Tensor, "B H M N"]:
        """One number for each query and key."""
        scores = self.q @ self.k.mT * self.scale
        return scores if self.bias is None else scores + self.bias

    def masked(self, attn_mask: Bool[Tensor, "..."]) -> "Scores":
        """The same scores where ``attn_mask`` is true, −∞ elsewhere."""
        closed = torch.zeros(attn_mask.shape, dtype=self.q.dtype, device=attn_mask.device).masked_fill(
            ~attn_mask, -torch.inf
        )
        return self._replace(bias=closed if self.bias is None else self.bias + closed)


class ScaledDotProduct(nn.Module):
    """q·k / √Dh, so that scores stay of one size whatever the width of a head (arXiv 1706.03762, section 3.2.1)."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = head_dim**-0.5

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Nothing changes."""
        return Scores(q, k, self.scale)


class DotProduct(nn.Module):
    """q·k as it is (arXiv 1508.04025, section 3.1)."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()

    def forward(self, q: Heads, k: Heads) -> Scores:
        """The scale is left out."""
        return Scores(q, k, 1.0)


class Cosine(nn.Module):
    """cos(q, k) · t, with a temperature learned for each head (arXiv 2111.09883, section 3.2)."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Queries and keys get length 1; queries carry the temperature, which stays below 100."""
        temperature = self.log_temperature.clamp(max=math.log(100.0)).exp().to(q.dtype)
        return Scores(F.normalize(q, dim=-1) * temperature, F.normalize(k, dim=-1), 1.0)


class Gaussian(nn.Module):
    """−|q − k|² / 2√Dh, a Gaussian kernel around the query (Nadaraya 1964, Watson 1964).

    Written out, the part with |q|² is the same for all keys of a query, and softmax does not see it: what remains is
    the scaled dot product with a bias of each key, −|k|² / 2√Dh.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = head_dim**-0.5

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Long keys are far from everything."""
        return Scores(q, k, self.scale, -0.5 * self.scale * k.square().sum(dim=-1).unsqueeze(-2))


class Additive(nn.Module):
    """w·tanh(q + k), a small network instead of a product (Bahdanau 2014, arXiv 1409.0473, appendix A.1.2).

    It needs Dh times the memory of a map, since it looks at every pair: for small images.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(num_heads, head_dim).normal_(std=head_dim**-0.5))

    def forward(self, q: Heads, k: Heads) -> Scores:
        """The scores are all bias; the product of queries and keys is taken to be zero."""
        pairs = torch.tanh(q.unsqueeze(-2) + k.unsqueeze(-3))  # (B, H, M, N, Dh)
        bias = torch.einsum("bhqkd,hd->bhqk", pairs, self.direction.to(q.dtype))
        return Scores(torch.zeros_like(q), torch.zeros_like(k), 1.0, bias)


AFFINITIES: dict[str, type[nn.Module]] = {
    "scaled_dot_product": ScaledDotProduct,
    "dot_product": DotProduct,
    "cosine": Cosine,
    "gaussian": Gaussian,
    "additive": Additive,
}


def only_top(scores: Scores, count: int) -> Scores:
    """Leave each query its ``count`` best keys; the rest gets −∞. Which they are has no gradient, their scores have."""
    with torch.no_grad():
        values = scores.multiplied_out()
        best = values.topk(min(count, values.shape[-1]), dim=-1).indices
        kept = torch.zeros_like(values, dtype=torch.bool).scatter_(-1, best, True)
    return scores.masked(kept)
