"""Vision transformer: patch embedding, blocks of attention and MLP, pooling and a linear head."""

import math

import torch
from jaxtyping import Float
from timm.layers import LayerNorm, build_sincos2d_pos_embed, trunc_normal_
from torch import Tensor, nn

from vit_attn.model.attention import Form
from vit_attn.model.block import Block
from vit_attn.model.options import STEMS, check_network_options, check_pool, check_sizes
from vit_attn.model.pool import AttentionPool
from vit_attn.model.positions import AttentionContext, GridPositions
from vit_attn.model.timm_api import TimmModel


class VisionTransformer(TimmModel):
    """ViT with timm's arguments, parameter names and results, built on our own attention.

    With timm's arguments, ``load_state_dict(strict=True)`` works in both directions and the logits agree.

    References:
        Dosovitskiy 2020, "An image is worth 16x16 words", arXiv 2010.11929.
        Darcet 2023, "Vision transformers need registers", arXiv 2309.16588, for ``reg_tokens``.
        Wightman, pytorch-image-models, ``timm/models/vision_transformer.py``, for names and meanings.
    """

    def __init__(  # noqa: PLR0913  timm's names, timm's meanings
        self,
        img_size: int | tuple[int, int] | list[int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        init_values: float | None = None,
        class_token: bool = True,
        no_embed_class: bool = False,
        reg_tokens: int = 0,
        fc_norm: bool | None = None,
        drop_path_rate: float = 0.0,
        stem: str = "linear",
        pos_embed: str = "learn",
        affinity: str = "scaled_dot_product",
        normaliser: str = "soft",
        top_k: int = 8,
        window: int | None = None,
        dynamic_img_size: bool = False,
    ) -> None:
        """Create the network.

        Args:
            img_size: Height and width of the images in pixels.
            patch_size: Side of a patch in pixels; must divide the image.
            in_chans: Channels of the images.
            num_classes: Number of logits; 0 returns the pooled features instead.
            global_pool: Pooling: ``token`` for the CLS token, ``avg`` for the mean over the patches, ``map`` for
                attention from a learned query to the patches, "" to leave the tokens unpooled.
            embed_dim: Width of a token.
            depth: Number of blocks.
            num_heads: Attention heads of each block; must divide the width.
            mlp_ratio: Hidden width of the MLPs as a multiple of the width.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether queries and keys pass a LayerNorm.
            init_values: Initial value of LayerScale's factors, such as 1e-4; None leaves LayerScale out.
            class_token: Whether a CLS token comes first.
            no_embed_class: Whether only the patches have position embeddings, not CLS and registers.
            reg_tokens: Number of register tokens after CLS.
            fc_norm: Whether the final norm comes after the pool instead of before; by default with ``avg``.
            drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
            stem: Patch embedding: ``linear`` patches, or ``conv`` for 3×3 convolutions of stride 2.
            pos_embed: Position embedding: ``learn`` a vector per patch, ``sincos`` fixed waves by row and column,
                ``rope`` rotations of queries and keys by row and column, or ``none``.
            affinity: Score function of a query and a key: ``scaled_dot_product``, ``dot_product``, ``cosine``,
                ``gaussian`` or ``additive``.
            normaliser: Turns scores into attention weights: ``soft`` (softmax), ``top_k`` or ``hard``.
            top_k: Number of keys that a query attends to under ``top_k``.
            window: Side, in patches, of the window around a patch that it attends to, odd; all patches by default.
                Prefix tokens attend to, and are attended by, all tokens.
            dynamic_img_size: Whether images of any multiple of the patch size are accepted; positions are resampled.

        Raises:
            UserError: If the sizes do not fit each other or a choice does not exist.
        """
        super().__init__()
        if isinstance(img_size, list):  # as timm reads it from config.json
            img_size = img_size[0], img_size[1]
        check_sizes(img_size, patch_size)
        check_network_options(stem, pos_embed, embed_dim, depth, drop_path_rate)
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.has_class_token, self.dynamic_img_size = class_token, dynamic_img_size
        self.check_pool(global_pool)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim  # timm's names for one number
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.no_embed_class = no_embed_class

        self.patch_embed = STEMS[stem](img_size, patch_size, in_chans, embed_dim, strict_img_size=not dynamic_img_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dim)) if reg_tokens else None
        rows, cols = self.patch_embed.grid_size or (0, 0)
        self._create_pos_embed(pos_embed, (rows, cols))
        rope_dim = embed_dim // max(1, num_heads) if pos_embed == "rope" else None
        self.positions = GridPositions((rows, cols), self.num_prefix_tokens, window, rope_dim)
        form = Form(affinity, normaliser, top_k)
        drop_paths = [drop_path_rate * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.Sequential(
            *(Block(embed_dim, num_heads, mlp_ratio, qkv_bias, qk_norm, init_values, p, form) for p in drop_paths)
        )
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": embed_dim, "reduction": patch_size} for i in range(depth)
        ]
        norm_after_pool = global_pool == "avg" if fc_norm is None else fc_norm
        self.norm = nn.Identity() if norm_after_pool else LayerNorm(embed_dim)
        self.attn_pool = AttentionPool(embed_dim, num_heads, mlp_ratio, form) if global_pool == "map" else None
        self.fc_norm = LayerNorm(embed_dim) if norm_after_pool else nn.Identity()
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self._init_weights()

    def _create_pos_embed(self, pos_embed: str, grid_size: tuple[int, int]) -> None:
        """Create the added position embedding, if any: a parameter, or a fixed buffer that is not in the state dict."""
        if pos_embed == "learn":
            count = math.prod(grid_size) + (0 if self.no_embed_class else self.num_prefix_tokens)
            self.pos_embed = nn.Parameter(torch.zeros(1, count, self.embed_dim))
            return
        self.no_embed_class = True  # prefix tokens have no position
        fixed = build_sincos2d_pos_embed(list(grid_size), self.embed_dim)[None] if pos_embed == "sincos" else None
        self.register_buffer("pos_embed", fixed, persistent=False)

    def _init_weights(self) -> None:
        """Initialise as timm does: truncated normal of standard deviation 0.02, biases zero, prefix tokens near 0."""
        if isinstance(self.pos_embed, nn.Parameter):
            trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def check_pool(self, global_pool: str) -> None:
        """Check that this network can pool its tokens so.

        Raises:
            UserError: If it cannot.
        """
        check_pool(global_pool, self.has_class_token)

    def forward_features(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        """Tokens after the last block: CLS, registers, then patches row by row."""
        tokens, context = self._embed(images), self._context(images)
        for block in self.blocks:
            tokens = self._run_block(block, tokens, context)
        return self.norm(tokens)

    def forward_head(self, x: Float[Tensor, "B N D"], pre_logits: bool = False) -> Float[Tensor, "B ... classes"]:
        """Pool the tokens and classify; with ``pre_logits`` the pooled features, (B, D)."""
        pooled = self.fc_norm(self._pool(x))
        return pooled if pre_logits else self.head(pooled)

    def _pool(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B ... D"]:
        if not self.global_pool:
            return x
        if self.global_pool == "token":
            return x[:, 0]
        patches = x[:, self.num_prefix_tokens :]
        return patches.mean(dim=1) if self.attn_pool is None else self.attn_pool(patches)

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B ... classes"]:
        """Logits of normalised images."""
        return self.forward_head(self.forward_features(images))

    def _embed(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        """Embed patches, prepend the prefix tokens and add position embeddings."""
        patches = self.patch_embed(images)  # (B, rows * cols, D)
        prefix = [
            token.expand(patches.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None
        ]
        added = self._added_positions(images)
        if added is None:
            return torch.cat([*prefix, patches], dim=1)
        if self.no_embed_class:
            return torch.cat([*prefix, patches + added], dim=1)
        return torch.cat([*prefix, patches], dim=1) + added

    def _grid_size(self, images: Float[Tensor, "B C height width"]) -> tuple[int, int]:
        size = self.patch_embed.dynamic_feat_size(images.shape[-2:]) if self.dynamic_img_size else None
        return size or self.patch_embed.grid_size

    def _context(self, images: Float[Tensor, "B C height width"]) -> AttentionContext:
        return self.positions(self._grid_size(images))

    def _added_positions(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "1 N D"] | None:
        """Position embeddings for the grid of these images."""
        if self.pos_embed is None or not self.dynamic_img_size:
            return self.pos_embed
        return self.resample_pos_embed(self._grid_size(images), self.patch_embed.grid_size)
