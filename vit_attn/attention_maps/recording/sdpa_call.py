"""What one fused attention was asked for, and what becomes of it under knock-outs and ablations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_attn.attention_maps.precision import kernel_dtype
from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention

SDPA_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@dataclass
class SDPACall:
    """The arguments of one attention, completed: as many heads of keys as of queries, and a mask or none.

    Args:
        q: Queries (B, H, M, Dh).
        k: Keys (B, H, N, Dh).
        v: Values (B, H, N, Dv).
        mask: Added to the scores, or True where attention may go.
        scale: What the products are multiplied by.
        hard: Whether all attention goes to the best key.
        cut: True on the edges that are taken away.
        silent: True, (B, H, M, 1), for rows that give zeros.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float
    hard: bool
    cut: Tensor | None = None
    silent: Tensor | None = None

    def take_away(self, cut: Tensor) -> None:
        """Cut edges, beside those that others cut."""
        self.cut = cut if self.cut is None else self.cut | cut

    def silence(self, rows: Tensor) -> None:
        """Let rows give zeros, beside those that others silence."""
        self.silent = rows if self.silent is None else self.silent | rows

    def answer(self, plain: Callable[[], Tensor] | None = None) -> Tensor:
        """What the attention gives, whose mask and silent rows are then what was used.

        Args:
            plain: What the network itself would do, which is done where nothing is cut.
        """
        if self.cut is not None:
            self._cut()
            plain = None
        output = self._attend() if plain is None else plain()
        return output if self.silent is None else output.masked_fill(self.silent, 0.0)

    def weights(self) -> Tensor:
        """The weights, in the network's graph, for modules that return them."""
        scores = self.q @ self.k.mT * self.scale
        if self.mask is not None:
            boolean = self.mask.dtype == torch.bool
            scores = scores.masked_fill(~self.mask, -torch.inf) if boolean else scores + self.mask
        weights = scores.softmax(dim=-1)
        return weights if self.silent is None else weights.masked_fill(self.silent, 0.0)

    def _attend(self) -> Tensor:
        attend: Any = hard_attention if self.hard else F.scaled_dot_product_attention
        return attend(self.q, self.k, self.v, attn_mask=self.mask, scale=self.scale)

    def _cut(self) -> None:
        """Close the mask on the cut edges; a row without a key left gives zeros, and no kernel divides by nothing."""
        cut: Any = self.cut
        mask, allowed = self.mask, ~cut
        bias = torch.zeros((), dtype=self.q.dtype, device=self.q.device)
        if mask is not None and mask.dtype == torch.bool:
            allowed = allowed & mask
        elif mask is not None:
            allowed, bias = allowed & (mask > -torch.inf), mask
        empty = ~allowed.any(dim=-1, keepdim=True)
        kept = allowed | empty
        if self.hard or mask is bias:
            kept = torch.where(kept, torch.where(empty, 0.0, bias), -torch.inf)
        self.mask = kept
        self.silence(empty)


def completed(  # noqa: PLR0913  the arguments of torch's scaled_dot_product_attention
    hard: bool,
    where: str,
    query: Tensor | None = None,
    key: Tensor | None = None,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **by_short_name: Any,
) -> SDPACall:
    """What fused attention, or hard attention, is asked for by these arguments, in what its kernel computes in.

    Raises:
        UserError: If dropout is on, or if queries, keys and values are not of images and heads.
    """
    q, k, v = (by_short_name.get(name, given) for name, given in (("q", query), ("k", key), ("v", value)))
    if dropout_p:
        raise UserError(
            f"attention dropout is on (p={dropout_p}){where}, so no map would be what was used: call net.eval()"
        )
    shapes = [tuple(each.shape) for each in (q, k, v)]
    if any(len(shape) != 4 for shape in shapes):
        raise UserError(f"attention of (images, heads, tokens, channels) was expected, got {shapes[0]}{where}")
    if enable_gqa:
        k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    batch = torch.broadcast_shapes(*(each.shape[:2] for each in (q, k, v)))
    q, k, v = (each.expand(*batch, *each.shape[2:]) for each in (q, k, v))
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if not hard:
        q, k, v = (each.to(kernel_dtype(each)) for each in (q, k, v))
        attn_mask = None if attn_mask is None else attn_mask.to(kernel_dtype(attn_mask))
    return SDPACall(q, k, v, attn_mask, q.shape[-1] ** -0.5 if scale is None else scale, hard)
