"""Model methods that timm's training, fine-tuning and feature extraction call."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit_attn.errors import UserError
from vit_attn.model.options import check_sizes
from vit_attn.model.positions import AttentionContext, GridPositions


class TimmModel(nn.Module):
    """Base class of a vision transformer with timm's model methods; the layers are those of the subclass.

    References:
        Wightman, pytorch-image-models, ``timm/models/vision_transformer.py``, for names and meanings.
    """

    patch_embed: Any
    pos_embed: Tensor | None
    positions: GridPositions
    blocks: nn.Sequential
    norm: nn.Module
    attn_pool: nn.Module | None
    fc_norm: nn.Module
    head: nn.Module
    num_prefix_tokens: int
    no_embed_class: bool
    feature_info: list[dict[str, Any]]
    embed_dim: int
    global_pool: str
    grad_checkpointing = False

    def _embed(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        raise NotImplementedError

    def _context(self, images: Float[Tensor, "B C height width"]) -> AttentionContext:
        raise NotImplementedError

    def _run_block(
        self, block: nn.Module, tokens: Float[Tensor, "B N D"], context: AttentionContext
    ) -> Float[Tensor, "B N D"]:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, context, use_reentrant=False)
        return block(tokens, context)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, in addition to norms and biases."""
        affinities = {name for name, _ in self.named_parameters() if ".affinity." in name}
        return (
            {"pos_embed", "cls_token", "reg_token"}
            | affinities
            | (set() if self.attn_pool is None else {"attn_pool.latent"})
        )

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by depth, for layer-wise learning rates; ``coarse`` makes no difference."""
        return {
            "stem": r"^cls_token|reg_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations: less memory, more time."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """Get the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one.

        Args:
            num_classes: Number of logits; 0 returns the pooled features instead.
            global_pool: Pooling, if it is to change; "" leaves the tokens unpooled.

        Raises:
            UserError: If the network cannot pool so.
        """
        parameter = next(self.parameters())
        if global_pool is not None:
            self.check_pool(global_pool)
            if global_pool == "map" and self.attn_pool is None:
                raise UserError("a pool by attention cannot be added later: create the network with global_pool='map'")
            if global_pool != "map":
                self.attn_pool = None
            self.global_pool = global_pool
        self.num_classes = num_classes
        head = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.head = head.to(parameter.device, parameter.dtype)

    def check_pool(self, global_pool: str) -> None:
        """Check that this network can pool its tokens so.

        Raises:
            UserError: If it cannot.
        """
        raise NotImplementedError

    def forward_intermediates(
        self,
        x: Float[Tensor, "B C height width"],
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Tokens after chosen blocks.

        Args:
            x: Normalised images.
            indices: Indices of the blocks, or their number, counted from the last; None for all.
            return_prefix_tokens: Whether each item is a pair of patch tokens and prefix tokens.
            norm: Whether each passes the final norm.
            stop_early: Whether blocks after the last chosen one are not run.
            output_fmt: ``NCHW`` for (B, D, rows, cols), ``NLC`` for (B, patches, D).
            intermediates_only: Whether the final tokens are left out.

        Returns:
            A list, one item per block; with the final tokens, ``(tokens, list)``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        chosen, last = _block_indices(len(self.blocks), indices)
        rows, cols = self.patch_embed.dynamic_feat_size(x.shape[-2:])
        tokens, context, outputs = self._embed(x), self._context(x), []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            tokens = self._run_block(block, tokens, context)
            if i in chosen:
                outputs.append(self.norm(tokens) if norm else tokens)

        def shaped(y: Tensor) -> Any:
            prefix, patches = y[:, : self.num_prefix_tokens], y[:, self.num_prefix_tokens :]
            if output_fmt == "NCHW":
                patches = patches.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()
            return (patches, prefix) if return_prefix_tokens and self.num_prefix_tokens else patches

        intermediates = [shaped(y) for y in outputs]
        return intermediates if intermediates_only else (self.norm(tokens), intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks after the last chosen one, and return the chosen indices."""
        chosen, last = _block_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.reset_classifier(0, "")
        return chosen

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Change the size of images and patches for good; patch weights and position embeddings are resampled.

        Args:
            img_size: Height and width in pixels; unchanged by default.
            patch_size: Side of a patch in pixels; unchanged by default.

        Raises:
            UserError: If the patches do not divide the image, or if the convolutional stem is to change its patches.
        """
        size = self.patch_embed.img_size if img_size is None else img_size
        patch = self.patch_embed.patch_size if patch_size is None else patch_size
        check_sizes(size, patch)
        old_grid = self.patch_embed.grid_size
        self.patch_embed.set_input_size(img_size=size, patch_size=patch)
        new_grid = self.patch_embed.grid_size
        self.positions.set_grid(new_grid)
        for info in self.feature_info:
            info["reduction"] = max(self.patch_embed.patch_size)
        if self.pos_embed is None or old_grid == new_grid:
            return
        resampled = self.resample_pos_embed(new_grid, old_grid).detach()
        if isinstance(self.pos_embed, nn.Parameter):
            resampled = nn.Parameter(resampled, requires_grad=self.pos_embed.requires_grad)
        self.pos_embed = resampled

    def resample_pos_embed(self, new_grid: tuple[int, int], old_grid: tuple[int, int]) -> Float[Tensor, "1 N D"]:
        """Position embeddings for another grid of patches; those of prefix tokens are unchanged."""
        embeddings: Any = self.pos_embed
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        return resample_abs_pos_embed(embeddings, list(new_grid), list(old_grid), prefix)


def _block_indices(depth: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Indices of the chosen blocks, and the last of them."""
    return feature_take_indices(depth, indices if indices is None or isinstance(indices, int) else list(indices))
