"""Order of tokens: a layout's own, prefix tokens first, and the network's, where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.layout import TokenLayout
from vit_attn.attention_maps.recording.sdpa_call import SDPACall
from vit_attn.errors import UserError


@dataclass(frozen=True)
class TokenOrder:
    """Indices of a layout's tokens in the network, which may have them in another order, and padding besides.

    Args:
        indices: Index of each token, prefix tokens first.
        total: Number of tokens of the network.
        num_prefix_tokens: Number of prefix tokens, which an attention pool may leave out.
    """

    indices: tuple[int, ...]
    total: int
    num_prefix_tokens: int

    def select(self, x: Tensor, dim: int) -> Tensor:
        """Select a layout's tokens along a dimension, in its order; unchanged if it has another number of tokens."""
        at = self.at(x.shape[dim])
        return x if at is None else x.index_select(dim, torch.tensor(at, device=x.device))

    def put_back(self, x: Tensor, selected: Tensor) -> Tensor:
        """Put what was selected along the queries, (B, H, M, Dv), back into its place in ``x``."""
        at = self.at(x.shape[2])
        return selected if at is None else x.index_copy(2, torch.tensor(at, device=x.device), selected)

    def reorder(self, name: str, call: AttentionCall) -> AttentionCall:
        """Select a layout's tokens of a recorded call, in its order.

        Raises:
            UserError: If these attend to padding, so that their weights do not sum to 1 without it.
        """
        q, output, zero_rows = (self._select(x, 2) for x in (call.q, call.output, call.zero_rows))
        mask = self._select(call.mask, 2)
        given = self._select(call.given, 2)
        self._check_padding(name, call.k.shape[2], mask, zero_rows, given)
        k, v, mask, given = (
            *(self._select(x, 2) for x in (call.k, call.v)),
            *(self._select(x, 3) for x in (mask, given)),
        )
        return replace(call, q=q, k=k, v=v, mask=mask, output=output, zero_rows=zero_rows, given=given)

    def spread(self, cut: Tensor, call: SDPACall) -> Tensor:
        """Turn a cut over a layout's tokens, (B, 1, M, N), into one over those of a call in the network."""
        for dim, count in ((2, call.q.shape[2]), (3, call.k.shape[2])):
            at = self.at(count)
            if at is not None and cut.shape[dim] == len(at):
                shape = [*cut.shape[:dim], count, *cut.shape[dim + 1 :]]
                cut = cut.new_zeros(shape).index_copy(dim, torch.tensor(at, device=cut.device), cut)
        return cut

    def _check_padding(
        self, name: str, keys: int, mask: Tensor | None, zero_rows: Tensor | None, given: Tensor | None
    ) -> None:
        at = self.at(keys)
        if at is None or len(at) == keys:
            return
        padding = [index for index in range(keys) if index not in set(at)]
        part = torch.zeros(1) if mask is None else mask[..., padding]
        part = part if given is None else given[..., padding] > 0
        allowed = part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
        if (allowed if zero_rows is None else allowed & ~zero_rows).any():
            raise UserError(
                f"{name} attends to tokens that only pad the images: call the network with the mask that its image "
                "processor returns, or without padding"
            )

    def _select(self, x: Tensor | None, dim: int) -> Any:
        return None if x is None else self.select(x, dim)

    def at(self, count: int) -> Sequence[int] | None:
        """Indices among this many tokens: all of the network, or all but prefix tokens before; None for any other."""
        if count == self.total:
            return self.indices
        prefix = self.num_prefix_tokens
        if count == self.total - prefix and sorted(self.indices[:prefix]) == list(range(prefix)):
            return [index - prefix for index in self.indices[prefix:]]
        return None


def order_of(layout: TokenLayout) -> TokenOrder | None:
    """Order of a layout's tokens; None if it is the network's own."""
    if layout.order is None:
        return None
    total = layout.num_tokens + layout.num_padding_tokens
    return TokenOrder(tuple(layout.order), total, layout.num_prefix_tokens)
