"""The vision transformer: an image becomes patches, patches exchange context, their pool names the class."""

import math

import torch
from jaxtyping import Float
from timm.layers import (
    LayerNorm,
    PatchEmbed,
    build_sincos2d_pos_embed,
    resample_abs_pos_embed,
    trunc_normal_,
)
from torch import Tensor, nn

from vit_attn.errors import UserError, did_you_mean
from vit_attn.model.attention import Form
from vit_attn.model.block import Block
from vit_attn.model.pool import AttentionPool
from vit_attn.model.positions import AttentionContext, GridPositions
from vit_attn.model.stem import ConvStem
from vit_attn.model.timm_api import TimmModel

POOLS = ("token", "avg", "map", "")
POSITIONS = ("learn", "sincos", "rope", "none")
STEMS = {"linear": PatchEmbed, "conv": ConvStem}


class VisionTransformer(TimmModel):
    """ViT with timm's configuration, parameter names and results, built on our own attention.

    With timm's arguments, ``load_state_dict(strict=True)`` works in both directions and the logits agree.

    References:
        Dosovitskiy 2020, "An image is worth 16x16 words", arXiv 2010.11929.
        Darcet 2023, "Vision transformers need registers", arXiv 2309.16588, for ``reg_tokens``.
        Wightman, pytorch-image-models, ``timm/models/vision_transformer.py``, for names and meanings.
    """

    def __init__(  # noqa: PLR0913  timm's names, timm's meanings
        self,
        img_size: int | tuple[int, int] = 224,
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
            global_pool: What the head reads: ``token`` the CLS token, ``avg`` the mean over the patches, ``map`` what a
                learned query takes from them by attention; with "" the tokens are left unpooled.
            embed_dim: Width of a token.
            depth: Number of blocks.
            num_heads: Attention heads of each block; must divide the width.
            mlp_ratio: Hidden width of the MLPs as a multiple of the width.
            qkv_bias: Whether queries, keys and values have a bias.
            qk_norm: Whether queries and keys pass a LayerNorm.
            init_values: Start of LayerScale's factors, such as 1e-4; without it there is no LayerScale.
            class_token: Whether a CLS token comes first.
            no_embed_class: Whether only the patches have positions, not CLS and registers.
            reg_tokens: Number of register tokens after CLS.
            fc_norm: Whether the final norm comes after the pool instead of before; by default with ``avg``.
            drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
            stem: How pixels become tokens: ``linear`` patches, or ``conv`` for 3×3 convolutions of stride 2.
            pos_embed: How a patch says where it is: ``learn`` a vector for each place, ``sincos`` fixed waves by row
                and column, ``rope`` turns queries and keys by row and column, ``none``.
            affinity: How well a key answers a query: ``scaled_dot_product``, ``dot_product``, ``cosine``, ``gaussian``
                or ``additive``.
            normaliser: How affinities become shares of attention: ``soft``, ``top_k`` or ``hard``.
            top_k: Number of keys that a query attends to under ``top_k``.
            window: Side, in patches, of the window around a patch that it attends to, odd; all patches by default.
                Prefix tokens see and are seen by all.
            dynamic_img_size: Whether images of any multiple of the patch size are taken; positions are resampled.

        Raises:
            UserError: If the sizes do not fit each other or a choice does not exist.
        """
        super().__init__()
        check_sizes(img_size, patch_size)
        _check(stem, pos_embed)
        for name, size in (("embed_dim", embed_dim), ("depth", depth)):
            if size < 1:
                raise UserError(f"{name} must be at least 1, got {size}")
        if not 0 <= drop_path_rate < 1:
            raise UserError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
        self.num_classes, self.in_chans, self.global_pool = num_classes, in_chans, global_pool
        self.has_class_token, self.dynamic_img_size = class_token, dynamic_img_size
        self.check_pool(global_pool)
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim  # timm's names for one number
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.no_embed_class = no_embed_class

        self.patch_embed = STEMS[stem](
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            strict_img_size=not dynamic_img_size,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dim)) if reg_tokens else None
        rows, cols = self.patch_embed.grid_size or (0, 0)
        self._place_tokens(pos_embed, (rows, cols))
        rope_dim = embed_dim // max(1, num_heads) if pos_embed == "rope" else None
        self.positions = GridPositions((rows, cols), self.num_prefix_tokens, window, rope_dim)
        form = Form(affinity, normaliser, top_k)
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, num_heads, mlp_ratio, qkv_bias, qk_norm, init_values, drop_path, form)
                for drop_path in (drop_path_rate * i / max(1, depth - 1) for i in range(depth))
            )
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

    def _place_tokens(self, pos_embed: str, grid_size: tuple[int, int]) -> None:
        """Make what is added to the tokens to say where they are; fixed places are no part of the state."""
        patches = math.prod(grid_size)
        if pos_embed == "learn":
            count = patches + (0 if self.no_embed_class else self.num_prefix_tokens)
            self.pos_embed = nn.Parameter(torch.zeros(1, count, self.embed_dim))
            return
        if pos_embed == "sincos" and self.embed_dim % 4:
            raise UserError(f"pos_embed='sincos' needs embed_dim to be a multiple of 4, got {self.embed_dim}")
        self.no_embed_class = True  # prefix tokens have no place
        fixed = build_sincos2d_pos_embed(list(grid_size), self.embed_dim)[None] if pos_embed == "sincos" else None
        self.register_buffer("pos_embed", fixed, persistent=False)

    def _init_weights(self) -> None:
        """Timm's default: normal of deviation 0.02 cut at two, biases zero; prefix tokens start almost equal."""
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
        """Refuse a pool that this network does not have.

        Raises:
            UserError: If so.
        """
        if global_pool not in POOLS:
            raise UserError(f"global_pool must be one of {', '.join(map(repr, POOLS))}, got {global_pool!r}")
        if global_pool == "token" and not self.has_class_token:
            raise UserError("global_pool='token' needs class_token=True; without CLS use global_pool='avg'")

    def forward_features(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        """Tokens after the last block: CLS, registers, then patches row by row."""
        tokens, context = self._embed(images), self._context(images)
        for block in self.blocks:
            tokens = self._through(block, tokens, context)
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
        return self._resampled(self._grid_size(images), self.patch_embed.grid_size)

    def _resampled(self, new: tuple[int, int], old: tuple[int, int]) -> Float[Tensor, "1 N D"]:
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        return resample_abs_pos_embed(self.pos_embed, list(new), list(old), prefix)

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Take images and patches of another size from now on; patch weights and positions are resampled.

        Args:
            img_size: Height and width in pixels; as they are by default.
            patch_size: Side of a patch in pixels; as it is by default.

        Raises:
            UserError: If the patches do not divide the image, or if the convolutional stem is to change its patches.
        """
        size = self.patch_embed.img_size if img_size is None else img_size
        patch = self.patch_embed.patch_size if patch_size is None else patch_size
        check_sizes(size, patch)
        before = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size=size, patch_size=patch)
        after = self.patch_embed.grid_size
        self.positions.set_grid(after)
        for info in self.feature_info:
            info["reduction"] = max(self.patch_embed.patch_size)
        if self.pos_embed is None or before == after:
            return
        resampled = self._resampled(after, before).detach()
        if isinstance(self.pos_embed, nn.Parameter):
            resampled = nn.Parameter(resampled, requires_grad=self.pos_embed.requires_grad)
        self.pos_embed = resampled


def check_sizes(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> None:
    """Refuse patches that do not divide the image.

    Raises:
        UserError: If so.
    """
    (height, width), (rows, cols) = (
        (size, size) if isinstance(size, int) else tuple(size) for size in (img_size, patch_size)
    )
    if min(rows, cols) < 1 or height % rows or width % cols or not (height and width):
        patch = f"{rows}" if rows == cols else f"{rows}x{cols}"
        raise UserError(f"img_size must be a multiple of patch_size, got img_size={height}x{width}, patch_size={patch}")


def _check(stem: str, pos_embed: str) -> None:
    if stem not in STEMS:
        raise UserError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}{did_you_mean(stem, STEMS)}")
    if pos_embed not in POSITIONS:
        hint = did_you_mean(pos_embed, POSITIONS)
        raise UserError(f"pos_embed must be one of {', '.join(POSITIONS)}, got {pos_embed!r}{hint}")
