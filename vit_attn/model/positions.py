"""Positions of tokens: attention masks, rotary tables and added embeddings for a grid of patches."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn

from vit_attn.errors import UserError


class AttentionContext(NamedTuple):
    """Mask and rotary positions of one attention; by default neither.

    Args:
        attn_mask: True where a query (row) may attend to a key (column), (N, N); everywhere by default.
        rope: Sines and cosines of the rotary position embedding of the patches, (patches, 2 Dh).
    """

    attn_mask: Tensor | None = None
    rope: Tensor | None = None


NO_CONTEXT = AttentionContext()


class GridPositions(nn.Module):
    """Attention context of a grid of patches after prefix tokens; fixed, and not in the state dict.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Number of tokens before the patches, which have no position.
        window: Side of the window of patches that a patch attends to, odd; None for all patches.
        rope_dim: Channels of a head, for rotary positions; None for no rotary positions.
    """

    def __init__(
        self, grid_size: tuple[int, int], num_prefix_tokens: int, window: int | None, rope_dim: int | None
    ) -> None:
        super().__init__()
        self.num_prefix_tokens, self.window, self.rope_dim = num_prefix_tokens, window, rope_dim
        self.attn_mask: Tensor | None
        self.rope: Tensor | None
        self.register_buffer("attn_mask", None, persistent=False)  # boolean: −∞ would not survive weight averaging
        self.register_buffer("rope", None, persistent=False)
        self.set_grid(grid_size)

    def set_grid(self, grid_size: tuple[int, int]) -> None:
        """Change the grid."""
        device = next((buffer.device for buffer in self.buffers()), None)
        self.grid_size = grid_size
        self.attn_mask, self.rope = self._context(grid_size, device)

    def forward(self, grid_size: tuple[int, int]) -> AttentionContext:
        """Attention context of a grid; computed anew for another grid than the module's own."""
        if grid_size == self.grid_size:
            return AttentionContext(self.attn_mask, self.rope)
        return self._context(grid_size, next((buffer.device for buffer in self.buffers()), None))

    def _context(self, grid_size: tuple[int, int], device: torch.device | None) -> AttentionContext:
        attn_mask = (
            None if self.window is None else local_attn_mask(grid_size, self.num_prefix_tokens, self.window).to(device)
        )
        rope = None if self.rope_dim is None else rope_table(grid_size, self.rope_dim).to(device)
        return AttentionContext(attn_mask, rope)


def rope_table(grid_size: tuple[int, int], head_dim: int) -> Float[Tensor, "P R"]:
    """Sines and cosines of axial RoPE: half of each head's channels by row, half by column.

    References:
        Heo 2024, "Rotary position embedding for vision transformer", arXiv 2403.13298, section 3 (axial).
    """
    if head_dim < 4 or head_dim % 4:
        raise UserError(f"pos_embed='rope' needs embed_dim / num_heads to be a multiple of 4, got {head_dim}")
    return RotaryEmbeddingCat(head_dim, in_pixels=False, feat_shape=list(grid_size), temperature=100.0).get_embed()


def local_attn_mask(grid_size: tuple[int, int], num_prefix_tokens: int, window: int) -> Bool[Tensor, "N N"]:
    """Mask of local attention: a patch attends to a window around it; prefix tokens are exempt.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Number of tokens before the patches.
        window: Side of the window in patches; odd, so that the query is its centre.

    Raises:
        UserError: If the window is even, or wider than the grid.
    """
    if type(window) is not int or window < 1 or window % 2 == 0 or window > min(grid_size):
        raise UserError(
            f"window must be odd and at most the grid of {grid_size[0]}x{grid_size[1]} patches, got {window}"
        )
    rows, cols = (torch.arange(size) for size in grid_size)
    row, col = rows.repeat_interleave(grid_size[1]), cols.repeat(grid_size[0])
    near = torch.maximum((row[:, None] - row).abs(), (col[:, None] - col).abs()) <= window // 2
    return F.pad(near, (num_prefix_tokens, 0, num_prefix_tokens, 0), value=True)
