"""Self-attention: every token asks all tokens, and takes from each in proportion to how well it answers."""

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm
from torch import Tensor, nn

from vit_attn.errors import UserError

Heads = Float[Tensor, "B H N Dh"]


class Attention(nn.Module):
    """Multi-head self-attention with a fused forward and explicit weights.

    A token's *query* says what it looks for, its *key* what it offers, its *value* what it gives. There is no
    dropout on the weights: it would make the weights that are shown differ from those that are used.

    References:
        Vaswani 2017, "Attention is all you need", arXiv 1706.03762, section 3.2.
        Henry 2020, "Query-key normalization for transformers", arXiv 2010.04245, for ``qk_norm``.
    """

    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = True, qk_norm: bool = False) -> None:
        """Create the projections, under timm's parameter names.

        Args:
            dim: Width of a token.
            num_heads: Number of heads; each works on ``dim / num_heads`` channels.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether each head's queries and keys pass a LayerNorm.

        Raises:
            UserError: If the heads do not divide the width.
        """
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise UserError(f"dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

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
        return self.q_norm(q), self.k_norm(k), v

    def weights(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B H N N"]:
        """Share of its attention that each query token (row) gives each key token (column); rows sum to 1."""
        q, k, _ = self._heads(x)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Mix the tokens, ``weights(x) @ v``, without materialising the map."""
        q, k, v = self._heads(x)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
