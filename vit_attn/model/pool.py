"""Attention pooling: a learned query attends to the patches."""

from dataclasses import replace

import torch
from jaxtyping import Float
from timm.layers import LayerNorm, Mlp, trunc_normal_
from torch import Tensor, nn

from vit_attn.model.attention import Attention, Form


class AttentionPool(Attention):
    """Cross attention from one learned query, the *latent*, to the tokens; then a residual MLP, as in a block.

    References:
        Lee 2018, "Set transformer", arXiv 1810.00825, section 3.2 (pooling by multihead attention, "MAP").
        Zhai 2021, "Scaling vision transformers", arXiv 2106.04560, section 3.3.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, form: Form = Form()) -> None:  # noqa: B008
        """Create the pool, under timm's parameter names.

        Args:
            dim: Width of a token.
            num_heads: Number of heads.
            mlp_ratio: Hidden width of the MLP as a multiple of ``dim``.
            form: Affinity and normaliser of the attention; its source is always ``cross``.
        """
        super().__init__(dim, num_heads, form=replace(form, source="cross"))
        self.latent = nn.Parameter(trunc_normal_(torch.empty(1, 1, dim), std=dim**-0.5))
        self.norm = LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:  # pyrefly: ignore[bad-override]
        """Pool the tokens to one vector."""
        x = super().forward(self._query(tokens), tokens)
        return (x + self.mlp(self.norm(x)))[:, 0]

    def weights(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B H 1 N"]:  # pyrefly: ignore[bad-override]
        """Attention weight of each token for the latent query."""
        return super().weights(self._query(tokens), tokens)

    def _query(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B 1 D"]:
        return self.latent.expand(tokens.shape[0], -1, -1)
