"""What timm's training, fine-tuning and feature extraction ask of every model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit_attn.errors import UserError
from vit_attn.model.positions import AttentionContext


class TimmModel(nn.Module):
    """A vision transformer's side of timm's conventions; the transformer itself is in the subclass.

    References:
        Wightman, pytorch-image-models, ``timm/models/vision_transformer.py``, for names and meanings.
    """

    patch_embed: Any
    blocks: nn.Sequential
    norm: nn.Module
    attn_pool: nn.Module | None
    fc_norm: nn.Module
    head: nn.Module
    num_prefix_tokens: int
    embed_dim: int
    global_pool: str
    grad_checkpointing = False

    def _embed(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B N D"]:
        raise NotImplementedError

    def _context(self, images: Float[Tensor, "B C height width"]) -> AttentionContext:
        raise NotImplementedError

    def _through(
        self, block: nn.Module, tokens: Float[Tensor, "B N D"], context: AttentionContext
    ) -> Float[Tensor, "B N D"]:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, context, use_reentrant=False)
        return block(tokens, context)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that optimisers should leave undecayed, beside norms and biases."""
        affinities = {name for name, _ in self.named_parameters() if ".affinity." in name}
        return (
            {"pos_embed", "cls_token", "reg_token"}
            | affinities
            | (set() if self.attn_pool is None else {"attn_pool.latent"})
        )

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for layer-wise learning rates; ``coarse`` makes no difference."""
        return {
            "stem": r"^cls_token|reg_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of keeping what they computed: less memory, more time."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place.

        Args:
            num_classes: Number of logits; 0 returns the pooled features instead.
            global_pool: What the head reads, if it is to change; "" leaves the tokens unpooled.

        Raises:
            UserError: If the network has no such pool.
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
        """Refuse a pool that this network does not have.

        Raises:
            UserError: If so.
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
        """Tokens after several blocks.

        Args:
            x: Normalised images.
            indices: Blocks to take; a number takes that many from the end, nothing takes all.
            return_prefix_tokens: Whether each comes with its prefix tokens, (patches, prefix).
            norm: Whether each passes the final norm.
            stop_early: Whether blocks after the last one taken are left out.
            output_fmt: ``NCHW`` for (B, D, rows, cols), ``NLC`` for (B, patches, D).
            intermediates_only: Whether the final tokens are left out.

        Returns:
            A list, one item a block; with the final tokens, ``(tokens, list)``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        taken, last = _take(len(self.blocks), indices)
        rows, cols = self.patch_embed.dynamic_feat_size(x.shape[-2:])
        tokens, context, outputs = self._embed(x), self._context(x), []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            tokens = self._through(block, tokens, context)
            if i in taken:
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
        """Remove the blocks after the last one that is taken; the indices that remain."""
        taken, last = _take(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.reset_classifier(0, "")
        return taken


def _take(depth: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The blocks that are taken, and the last of them."""
    return feature_take_indices(depth, indices if indices is None or isinstance(indices, int) else list(indices))
