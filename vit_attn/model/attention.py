"""Attention: every token asks all tokens, and takes from each in proportion to how well it answers."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from timm.layers import LayerNorm
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from vit_attn.errors import UserError, did_you_mean
from vit_attn.model.scores import AFFINITIES, Heads, Scores, only_top

NORMALISERS = ("soft", "hard", "top_k")


@dataclass(frozen=True)
class Form:
    """The details in which one attention differs from another.

    Args:
        affinity: How well a key answers a query, a name of ``AFFINITIES``.
        normaliser: How affinities become shares: ``soft`` is softmax, ``top_k`` softmax over a query's best keys,
            ``hard`` all for the best one.
        top_k: Number of keys for ``top_k``.
        scope: Which key (column) each query (row) sees; everything by default.
        rotations: Sines and cosines that turn the patches' queries and keys by their places (RoPE), (patches, 2 Dh).
    """

    affinity: str = "scaled_dot_product"
    normaliser: str = "soft"
    top_k: int = 8
    scope: Bool[Tensor, "N N"] | None = None
    rotations: Float[Tensor, "P R"] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not exist, by name."""
        for name, value, known in (
            ("affinity", self.affinity, AFFINITIES),
            ("normaliser", self.normaliser, NORMALISERS),
        ):
            if value not in known:
                hint = did_you_mean(value, known)
                raise UserError(f"{name} must be one of {', '.join(known)}, got {value!r}{hint}")
        if not isinstance(self.top_k, int) or self.top_k < 1:
            raise UserError(f"top_k must be a whole number from 1, got {self.top_k}")


class Attention(nn.Module):
    """Multi-head self-attention with a fused forward and explicit weights.

    A token's *query* says what it looks for, its *key* what it offers, its *value* what it gives. There is no
    dropout on the weights: it would make the weights that are shown differ from those that are used.

    References:
        Vaswani 2017, "Attention is all you need", arXiv 1706.03762, section 3.2.
        Henry 2020, "Query-key normalization for transformers", arXiv 2010.04245, for ``qk_norm``.
        Su 2021, "RoFormer", arXiv 2104.09864, for ``Form.rotations``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        form: Form = Form(),
    ) -> None:
        """Create the projections, under timm's parameter names.

        Args:
            dim: Width of a token.
            num_heads: Number of heads; each works on ``dim / num_heads`` channels.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether each head's queries and keys pass a LayerNorm.
            form: The details in which this attention may differ from scaled dot product with softmax over all tokens.

        Raises:
            UserError: If the heads do not divide the width.
        """
        super().__init__()
        if not isinstance(num_heads, int) or num_heads < 1 or dim % num_heads:
            raise UserError(f"dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")
        head_dim = dim // num_heads
        self.num_heads, self.normaliser, self.top_k = num_heads, form.normaliser, form.top_k
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(head_dim) if qk_norm else nn.Identity()
        self.affinity = AFFINITIES[form.affinity](num_heads, head_dim)
        self.proj = nn.Linear(dim, dim)
        self.scope: Tensor | None
        self.register_buffer("scope", form.scope, persistent=False)  # boolean: −∞ would not survive weight averaging
        self.register_buffer("rotations", form.rotations, persistent=False)

    @property
    def query_weights(self) -> Float[Tensor, "D D"]:
        """What turns a token into its query, a view of ``qkv.weight``."""
        return self.qkv.weight.chunk(3)[0]

    @property
    def key_weights(self) -> Float[Tensor, "D D"]:
        """What turns a token into its key, a view of ``qkv.weight``."""
        return self.qkv.weight.chunk(3)[1]

    @property
    def value_weights(self) -> Float[Tensor, "D D"]:
        """What turns a token into its value, a view of ``qkv.weight``."""
        return self.qkv.weight.chunk(3)[2]

    def _heads(self, x: Float[Tensor, "B N D"]) -> tuple[Heads, Heads, Heads]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, Dh)
        return self._place(self.q_norm(q)), self._place(self.k_norm(k)), v

    def _place(self, x: Heads) -> Heads:
        """Turn the patches' vectors by their places; prefix tokens have none."""
        if self.rotations is None:
            return x
        prefix = x.shape[-2] - len(self.rotations)
        return torch.cat([x[..., :prefix, :], apply_rot_embed_cat(x[..., prefix:, :], self.rotations)], dim=-2)

    def _scores(self, q: Heads, k: Heads) -> Scores:
        scores: Scores = self.affinity(q, k)
        if self.scope is not None:
            scores = scores.within(self.scope)
        return only_top(scores, self.top_k) if self.normaliser == "top_k" else scores

    def weights(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B H N N"]:
        """Share of its attention that each query token (row) gives each key token (column); rows sum to 1."""
        q, k, _ = self._heads(x)
        scores = self._scores(q, k)
        return hard_weights(scores) if self.normaliser == "hard" else scores.multiplied_out().softmax(dim=-1)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Mix the tokens, ``weights(x) @ v``; soft attention by a product of q and k never forms the map."""
        q, k, v = self._heads(x)
        q, k, scale, bias = self._scores(q, k)
        bias = None if bias is None else bias.to(q.dtype)
        attend: Any = hard_attention if self.normaliser == "hard" else F.scaled_dot_product_attention
        return self.proj(attend(q, k, v, attn_mask=bias, scale=scale).transpose(1, 2).flatten(-2))


def hard_weights(scores: Scores) -> Float[Tensor, "B H N N"]:
    """All attention on the best key; the gradient passes straight through, as if it were softmax (arXiv 1308.3432)."""
    soft = scores.multiplied_out().softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def hard_attention(
    q: Heads, k: Heads, v: Heads, attn_mask: Float[Tensor, "..."] | None = None, scale: float = 1.0
) -> Heads:
    """Each query's best key's value. A ``TorchFunctionMode`` sees this call as it sees fused attention.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        attn_mask: What is added to the scores.
        scale: What the products are multiplied by.
    """
    if has_torch_function((q, k, v)):
        return handle_torch_function(hard_attention, (q, k, v), q, k, v, attn_mask=attn_mask, scale=scale)
    exact = torch.promote_types(q.dtype, torch.float32)  # rounded scores would tie, and ties would decide
    with torch.autocast(q.device.type, enabled=False):
        bias = None if attn_mask is None else attn_mask.to(exact)
        return hard_weights(Scores(q.to(exact), k.to(exact), scale, bias)).to(v.dtype) @ v
