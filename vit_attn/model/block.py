"""Transformer block: attention and an MLP, each with a residual connection."""

from jaxtyping import Float
from timm.layers import DropPath, LayerNorm, LayerScale, Mlp
from torch import Tensor, nn

from vit_attn.model.attention import Attention, Form
from vit_attn.model.positions import NO_CONTEXT, AttentionContext


class Block(nn.Module):
    """Pre-norm transformer block: attention mixes the tokens, an MLP transforms each; both are added to the residual.

    References:
        Dosovitskiy 2020, "An image is worth 16x16 words", arXiv 2010.11929, equations 2 and 3.
        Touvron 2021, "Going deeper with image transformers", arXiv 2103.17239, for LayerScale (``init_values``).
        Huang 2016, "Deep networks with stochastic depth", arXiv 1603.09382, for ``drop_path``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        init_values: float | None = None,
        drop_path: float = 0.0,
        form: Form = Form(),  # noqa: B008  frozen
    ) -> None:
        """Create the block, under timm's parameter names.

        Args:
            dim: Width of a token.
            num_heads: Number of attention heads.
            mlp_ratio: Hidden width of the MLP as a multiple of ``dim``.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether queries and keys pass a LayerNorm.
            init_values: Initial value of LayerScale's factors, such as 1e-4; None leaves LayerScale out.
            drop_path: Fraction of training images that skip the attention, and of those that skip the MLP.
            form: Affinity and normaliser of the attention.
        """
        super().__init__()

        def scale() -> nn.Module:
            return LayerScale(dim, init_values=init_values) if init_values else nn.Identity()

        def skip() -> nn.Module:
            return DropPath(drop_path) if drop_path else nn.Identity()

        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm, form=form)
        self.ls1, self.drop_path1 = scale(), skip()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio))
        self.ls2, self.drop_path2 = scale(), skip()

    def forward(self, x: Float[Tensor, "B N D"], context: AttentionContext = NO_CONTEXT) -> Float[Tensor, "B N D"]:
        """Transform the tokens.

        Args:
            x: Tokens.
            context: Mask and rotary positions for the attention.
        """
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), context=context)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
