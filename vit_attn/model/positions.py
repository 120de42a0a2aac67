"""Where tokens are, as far as attention asks: who may ask whom, and how far apart two patches are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn

from vit_attn.errors import UserError


class AttentionContext(NamedTuple):
    """What an attention is told about the places of its tokens; by default nothing.

    Args:
        attn_mask: Which key (column) each query (row) sees, (N, N); everything by default.
        rope: Sines and cosines that turn the patches' queries and keys by their places (RoPE), (patches, 2 Dh).
    """

    attn_mask: Tensor | None = None
    rope: Tensor | None = None


NO_CONTEXT = AttentionContext()


class GridPositions(nn.Module):
    """The places of a grid of patches behind prefix tokens; fixed, and no part of the state.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Tokens before the patches, which have no place.
        window: Side of the window of patches that a patch sees, odd; all patches by default.
        rope_dim: Channels of a head, for rotary positions; none by default.
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
        """Take another grid for good."""
        device = next((buffer.device for buffer in self.buffers()), None)
        self.grid_size = grid_size
        self.attn_mask, self.rope = self._of(grid_size, device)

    def forward(self, grid_size: tuple[int, int]) -> AttentionContext:
        """The places of a grid; those of another than its own are computed on the way."""
        if grid_size == self.grid_size:
            return AttentionContext(self.attn_mask, self.rope)
        return self._of(grid_size, next((buffer.device for buffer in self.buffers()), None))

    def _of(self, grid_size: tuple[int, int], device: torch.device | None) -> AttentionContext:
        attn_mask = (
            None if self.window is None else local_attn_mask(grid_size, self.num_prefix_tokens, self.window).to(device)
        )
        rope = None if self.rope_dim is None else rope_table(grid_size, self.rope_dim).to(device)
        return AttentionContext(attn_mask, rope)


def rope_table(grid_size: tuple[int, int], head_dim: int) -> Float[Tensor, "P R"]:
    """Sines and cosines by which RoPE turns half of each head's channels by row and half by column.

    References:
        Heo 2024, "Rotary position embedding for vision transformer", arXiv 2403.13298, section 3 (axial).
    """
    if head_dim < 4 or head_dim % 4:
        raise UserError(f"pos_embed='rope' needs embed_dim / num_heads to be a multiple of 4, got {head_dim}")
    return RotaryEmbeddingCat(head_dim, in_pixels=False, feat_shape=list(grid_size), temperature=100.0).get_embed()


def local_attn_mask(grid_size: tuple[int, int], num_prefix_tokens: int, window: int) -> Bool[Tensor, "N N"]:
    """Which keys a query sees: patches in the window around its own; prefix tokens see and are seen by all.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Tokens before the patches.
        window: Side of the window in patches, odd, so that the query is its centre.

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
