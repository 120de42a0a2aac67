"""Affinities: score functions of a query and a key, in the form that fused attention computes.

Each affinity turns queries and keys into arguments of fused attention: changed queries, changed keys, a scale and an
additive bias, so that its attention is ``softmax(q @ k.mT * scale + bias) @ v``. To add one, write a module with
``__init__(num_heads, head_dim)`` and ``forward(q, k) -> Scores`` and name it in ``AFFINITIES``, or decorate it with
:func:`register_affinity` outside of this package: networks, options and tests take their list from there.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit_attn.errors import UserError

Heads = Float[Tensor, "B H _ Dh"]
"""Queries, keys or values by head; there may be fewer queries than keys."""


class Scores(NamedTuple):
    """Scores ``q @ k.mT * scale + bias`` as their factors; the bias broadcasts to (B, H, M, N)."""

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None

    def materialize(self) -> Float[Tensor, "B H M N"]:
        """Compute the score of each query and key."""
        scores = self.q @ self.k.mT * self.scale
        return scores if self.bias is None else scores + self.bias

    def masked(self, attn_mask: Bool[Tensor, "..."]) -> "Scores":
        """Set the scores to −∞ where ``attn_mask`` is false."""
        closed = torch.zeros(attn_mask.shape, dtype=self.q.dtype, device=attn_mask.device).masked_fill(
            ~attn_mask, -torch.inf
        )
        return self._replace(bias=closed if self.bias is None else self.bias + closed)


class ScaledDotProduct(nn.Module):
    """Scaled dot product q·k / √Dh, of a variance that no head width changes (arXiv 1706.03762, section 3.2.1)."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = head_dim**-0.5

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Scores of unchanged queries and keys."""
        return Scores(q, k, self.scale)


class DotProduct(nn.Module):
    """Dot product q·k (arXiv 1508.04025, section 3.1)."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Scores of unchanged queries and keys, without a scale."""
        return Scores(q, k, 1.0)


class Cosine(nn.Module):
    """Cosine similarity cos(q, k) · t, with a factor t learned for each head.

    As in Swin v2, t is at most 100, so that training cannot drive attention into one-hot weights.

    References:
        Liu 2021, "Swin transformer V2", arXiv 2111.09883, section 3.2 (there 1/τ, with τ of at least 0.01).
    """

    MAX_TEMPERATURE = 100.0

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Scores of queries of length t and keys of length 1."""
        temperature = self.log_temperature.clamp(max=math.log(self.MAX_TEMPERATURE)).exp().to(q.dtype)
        return Scores(F.normalize(q, dim=-1) * temperature, F.normalize(k, dim=-1), 1.0)


class Gaussian(nn.Module):
    """Gaussian kernel −|q − k|² / 2√Dh (Nadaraya 1964, Watson 1964).

    Expanded, the term |q|² is the same for all keys of a query and cancels in softmax: what remains is the scaled dot
    product with a bias per key, −|k|² / 2√Dh.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.scale = head_dim**-0.5

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Scores of unchanged queries and keys, with a bias per key."""
        return Scores(q, k, self.scale, -0.5 * self.scale * k.square().sum(dim=-1).unsqueeze(-2))


class Additive(nn.Module):
    """Additive score w·tanh(q + k), a small network instead of a product (arXiv 1409.0473, appendix A.1.2).

    It needs Dh times the memory of a map, since tanh is computed for every pair: for small images.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.empty(num_heads, head_dim).normal_(std=head_dim**-0.5))

    def forward(self, q: Heads, k: Heads) -> Scores:
        """Scores that are all bias; queries and keys are replaced by zeros."""
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
"""Affinities by name: ``(num_heads, head_dim)`` makes a module that maps queries and keys to ``Scores``."""


def register_affinity(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register the decorated class as a score function, for ``--model.arch_options.affinity=NAME``.

    Args:
        name: Name in options.

    Raises:
        UserError: If the name is not of lower-case letters, digits and ``_``, or if another class has it.

    >>> @register_affinity("negative_distance")
    ... class NegativeDistance(Gaussian):
    ...     pass
    >>> AFFINITIES.pop("negative_distance").__name__
    'NegativeDistance'
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"a score function's name must be of lower-case letters, digits and _, got {name!r}")

    def register(affinity: type[nn.Module]) -> type[nn.Module]:
        if name in AFFINITIES:
            raise UserError(f"there is a score function {name!r} already, {AFFINITIES[name].__name__}")
        AFFINITIES[name] = affinity
        return affinity

    return register


def keep_top_k(scores: Scores, count: int) -> Scores:
    """Set all but the ``count`` best scores of each query to −∞; the choice of keys has no gradient."""
    with torch.no_grad():
        values = scores.materialize()
        best = values.topk(min(count, values.shape[-1]), dim=-1).indices
        kept = torch.zeros_like(values, dtype=torch.bool).scatter_(-1, best, True)
    return scores.masked(kept)
