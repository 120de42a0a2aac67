"""Multi-head attention with a choice of affinity and normaliser, a fused forward and explicit weights.

An *affinity* scores each key for a query, a *normaliser* turns a query's scores into weights that sum to 1. A paper
would write score function and, for the normaliser ``soft``, softmax.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from vit_attn.errors import UserError, did_you_mean
from vit_attn.model.positions import NO_CONTEXT, AttentionContext
from vit_attn.model.scores import AFFINITIES, Heads, Scores, keep_top_k

NORMALISERS = ("soft", "hard", "top_k")
SOURCES = ("self", "cross")


@dataclass(frozen=True)
class Form:
    """Configuration of an attention: affinity, normaliser and source.

    Args:
        affinity: Score function of a query and a key, a name of ``AFFINITIES``.
        normaliser: Turns scores into weights: ``soft`` is softmax, ``top_k`` softmax over the best keys of each query,
            ``hard`` gives the best key weight 1.
        top_k: Number of keys for ``top_k``.
        source: Tokens that keys and values are computed from: ``self``, the same as the queries, or ``cross``, others.
    """

    affinity: str = "scaled_dot_product"
    normaliser: str = "soft"
    top_k: int = 8
    source: str = "self"

    def __post_init__(self) -> None:
        """Check each choice.

        Raises:
            UserError: If there is no such affinity, normaliser or source, or if ``top_k`` is not positive.
        """
        for name, value, known in (
            ("affinity", self.affinity, AFFINITIES),
            ("normaliser", self.normaliser, NORMALISERS),
            ("source", self.source, SOURCES),
        ):
            if value not in known:
                hint = did_you_mean(value, known)
                raise UserError(f"{name} must be one of {', '.join(known)}, got {value!r}{hint}")
        if not isinstance(self.top_k, int) or self.top_k < 1:
            raise UserError(f"top_k must be a whole number from 1, got {self.top_k}")


class Attention(nn.Module):
    """Multi-head attention with a fused forward and explicit weights.

    A token's *query* is compared with every token's *key*; the resulting weights average the tokens' *values*. There
    is no dropout on the weights: it would make the weights that are shown differ from those that are used.

    References:
        Vaswani 2017, "Attention is all you need", arXiv 1706.03762, section 3.2.
        Henry 2020, "Query-key normalization for transformers", arXiv 2010.04245, for ``qk_norm``.
        Su 2021, "RoFormer", arXiv 2104.09864, for ``AttentionContext.rope``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        form: Form = Form(),
    ) -> None:
        """Create the projections, under timm's parameter names: ``qkv``, or ``q`` and ``kv`` across sources.

        Args:
            dim: Width of a token.
            num_heads: Number of heads; each works on ``dim / num_heads`` channels.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether each head's queries and keys pass a LayerNorm.
            form: Affinity, normaliser and source; by default scaled dot product with softmax over all tokens.

        Raises:
            UserError: If ``dim`` is not a multiple of ``num_heads``.
        """
        super().__init__()
        if not isinstance(num_heads, int) or num_heads < 1 or dim % num_heads:
            raise UserError(f"dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")
        head_dim = dim // num_heads
        self.num_heads, self.form = num_heads, form
        if form.source == "self":
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        else:
            self.q, self.kv = nn.Linear(dim, dim, bias=qkv_bias), nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.q_norm = LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.affinity = AFFINITIES[form.affinity](num_heads, head_dim)
        self.proj = nn.Linear(dim, dim)

    @property
    def query_weights(self) -> Float[Tensor, "D D"]:
        """Projection of a token to its query, a view of the parameter."""
        return self.qkv.weight.chunk(3)[0] if self.form.source == "self" else self.q.weight

    @property
    def key_weights(self) -> Float[Tensor, "D D"]:
        """Projection of a token to its key, a view of the parameter."""
        return self.qkv.weight.chunk(3)[1] if self.form.source == "self" else self.kv.weight.chunk(2)[0]

    @property
    def value_weights(self) -> Float[Tensor, "D D"]:
        """Projection of a token to its value, a view of the parameter."""
        return self.qkv.weight.chunk(3)[2] if self.form.source == "self" else self.kv.weight.chunk(2)[1]

    def _heads(
        self, x: Float[Tensor, "B M D"], source: Float[Tensor, "B N D"] | None, context: AttentionContext
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values, normalised and rotated."""
        if (source is None) != (self.form.source == "self"):
            takes = "no source" if source is not None else "a source"
            raise UserError(f"attention with source={self.form.source!r} takes {takes}")
        if source is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)  # each (B, N, H, Dh)
        else:
            q = self.q(x).unflatten(-1, (self.num_heads, -1))  # (B, M, H, Dh)
            k, v = self.kv(source).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        # split before the axes are swapped: the gradient is then gathered by one copy, not two
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return _apply_rope(self.q_norm(q), context), _apply_rope(self.k_norm(k), context), v

    def _scores(self, q: Heads, k: Heads, context: AttentionContext) -> Scores:
        """Scores with the mask of the context, and with that of top-k."""
        scores: Scores = self.affinity(q, k)
        if not isinstance(scores, Scores):
            kind = type(self.affinity).__name__
            raise UserError(f"the score function {kind} must return Scores(q, k, scale, bias), got {type(scores)}")
        if context.attn_mask is not None:
            scores = scores.masked(context.attn_mask)
        return keep_top_k(scores, self.form.top_k) if self.form.normaliser == "top_k" else scores

    def weights(
        self,
        x: Float[Tensor, "B M D"],
        source: Float[Tensor, "B N D"] | None = None,
        context: AttentionContext = NO_CONTEXT,
    ) -> Float[Tensor, "B H M N"]:
        """Attention weight of each key token (column) for each query token (row); rows sum to 1."""
        q, k, _ = self._heads(x, source, context)
        scores = self._scores(q, k, context)
        return hard_weights(scores) if self.form.normaliser == "hard" else scores.materialize().softmax(dim=-1)

    def forward(
        self,
        x: Float[Tensor, "B M D"],
        source: Float[Tensor, "B N D"] | None = None,
        context: AttentionContext = NO_CONTEXT,
    ) -> Float[Tensor, "B M D"]:
        """Mix the values, ``proj(weights(x) @ v)``; soft attention by a product of q and k never forms the map.

        Args:
            x: Tokens that queries are computed from.
            source: Tokens that keys and values are computed from, for ``Form(source="cross")`` only.
            context: Mask and rotary positions.
        """
        q, k, v = self._heads(x, source, context)
        q, k, scale, bias = self._scores(q, k, context)
        bias = None if bias is None else bias.to(q.dtype)
        attend: Any = hard_attention if self.form.normaliser == "hard" else F.scaled_dot_product_attention
        return self.proj(attend(q, k, v, attn_mask=bias, scale=scale).transpose(1, 2).flatten(-2))


def _apply_rope(x: Heads, context: AttentionContext) -> Heads:
    """Apply rotary positions to the patches' queries or keys; prefix tokens have no position."""
    if context.rope is None:
        return x
    prefix = x.shape[-2] - context.rope.shape[0]
    return torch.cat([x[..., :prefix, :], apply_rot_embed_cat(x[..., prefix:, :], context.rope)], dim=-2)


def hard_weights(scores: Scores) -> Float[Tensor, "B H M N"]:
    """One-hot weights on the best key, with the gradient of softmax (straight-through, arXiv 1308.3432)."""
    soft = scores.materialize().softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def hard_attention(
    q: Heads, k: Heads, v: Heads, attn_mask: Float[Tensor, "..."] | None = None, scale: float = 1.0
) -> Heads:
    """Hard attention: each query gets the value of its best key. A ``TorchFunctionMode`` sees the call as it sees SDPA.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        attn_mask: Added to the scores.
        scale: Factor of the products of queries and keys.
    """
    if has_torch_function((q, k, v)):
        return handle_torch_function(hard_attention, (q, k, v), q, k, v, attn_mask=attn_mask, scale=scale)
    exact = torch.promote_types(q.dtype, torch.float32)  # scores rounded to 16 bits would tie
    with torch.autocast(q.device.type, enabled=False):
        bias = None if attn_mask is None else attn_mask.to(exact)
        return hard_weights(Scores(q.to(exact), k.to(exact), scale, bias)).to(v.dtype) @ v
