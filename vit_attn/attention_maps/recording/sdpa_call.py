"""Arguments of one call of fused attention, with the changes that knock-outs and ablations make to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_attn.attention_maps.precision import kernel_dtype
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention

SDPA_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


@dataclass
class SDPACall:
    """Arguments of one attention call, normalised: as many key heads as query heads, ``is_causal`` as a mask.

    Args:
        q: Queries (B, H, M, Dh).
        k: Keys (B, H, N, Dh).
        v: Values (B, H, N, Dv).
        mask: Added to the scores if it is of floats; True where attention is allowed if it is boolean.
        scale: Factor of the products of queries and keys.
        hard: Whether each query attends to its best key alone.
        removed_edges: True, broadcastable to (B, H, M, N), on the edges that are knocked out.
        most_removed: Upper bound of the edges that one query loses.
        zero_rows: True, (B, H, M, 1), for queries whose output is zero.
        given: Weights (B, H, M, N), if the network computes them itself; then queries and keys are zeros.
        sources: The queries, or the scores, and the values, as the network gave them.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float
    hard: bool
    removed_edges: Tensor | None = None
    most_removed: int = 0
    zero_rows: Tensor | None = None
    given: Tensor | None = None
    sources: tuple[Tensor | None, Tensor | None] = (None, None)

    def mask_out(self, edges: Tensor, heads: list[int] | None, most: int) -> None:
        """Remove edges, in addition to those already removed.

        Args:
            edges: True, (B or 1, 1, M, N), on these edges.
            heads: Heads that lose them; None for all.
            most: Upper bound of the edges that one query loses.
        """
        if heads is not None:
            of_heads = edges.new_zeros(len(edges), self.q.shape[1], *edges.shape[2:])
            of_heads[:, heads] = edges
            edges = of_heads
        self.removed_edges = edges if self.removed_edges is None else self.removed_edges | edges
        self.most_removed += most

    def zero_out(self, rows: Tensor) -> None:
        """Set the output of these queries to zero, in addition to those already set."""
        self.zero_rows = rows if self.zero_rows is None else self.zero_rows | rows

    def compute(self, original: Callable[[], Tensor] | None = None) -> Tensor:
        """Compute the attention; ``mask`` and ``zero_rows`` are afterwards those that were used.

        Args:
            original: The network's own call, made as it is where no edge is removed.
        """
        if self.removed_edges is not None:
            self._close_mask(self.removed_edges)
            original = None
        output = self._attend() if original is None else original()
        return output if self.zero_rows is None else output.masked_fill(self.zero_rows, 0.0)

    def weights(self) -> Tensor:
        """Compute the attention weights in the network's graph, for modules that return them."""
        scores = self.q @ self.k.mT * self.scale
        if self.mask is not None:
            boolean = self.mask.dtype == torch.bool
            scores = scores.masked_fill(~self.mask, -torch.inf) if boolean else scores + self.mask
        weights = scores.softmax(dim=-1)
        return weights if self.zero_rows is None else weights.masked_fill(self.zero_rows, 0.0)

    def recorded(self, output: Tensor | None) -> AttentionCall:
        """Keep what the weights are computed from, detached.

        Args:
            output: The output in the network's graph, if gradients are recorded.
        """
        mask = None if self.mask is None else self.mask.detach()
        zero_rows, rows = _zero_rows(mask, self.zero_rows), self.q.shape[:3]
        return AttentionCall(
            q=self.q.detach(),
            k=self.k.detach(),
            v=self.v.detach(),
            mask=None if mask is None else mask.expand(*rows, self.k.shape[2]),
            scale=self.scale,
            hard=self.hard,
            output=output,
            zero_rows=None if zero_rows is None else zero_rows.expand(*rows, 1),
            given=None if self.given is None else self.given.detach(),
        )

    def _attend(self) -> Tensor:
        attend: Any = hard_attention if self.hard else F.scaled_dot_product_attention
        return attend(self.q, self.k, self.v, attn_mask=self.mask, scale=self.scale)

    def _close_mask(self, removed: Tensor) -> None:
        """Close the mask on the removed edges; a query without any key gives zeros, so no kernel divides by zero."""
        mask, allowed = self.mask, ~removed
        if mask is None and not self.hard and self.most_removed < removed.shape[-1]:
            self.mask = allowed  # every query has a key left
            return
        bias = torch.zeros((), dtype=self.q.dtype, device=self.q.device)
        if mask is not None and mask.dtype == torch.bool:
            allowed = allowed & mask
        elif mask is not None:
            allowed, bias = allowed & (mask > torch.finfo(mask.dtype).min / 2), mask  # libraries close by the least
        empty = ~allowed.any(dim=-1, keepdim=True)
        kept = allowed | empty
        if self.hard or mask is bias:
            kept = torch.where(kept, torch.where(empty, 0.0, bias), -torch.inf)
        self.mask = kept
        self.zero_out(empty)


def bind_call(  # noqa: PLR0913  the arguments of torch's scaled_dot_product_attention
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
    **short_names: Any,
) -> SDPACall:
    """Bind the arguments of fused or hard attention, in the dtype that its kernel computes in.

    Args:
        hard: Whether the call is of :func:`hard_attention`, whose tensors are named ``q``, ``k`` and ``v``.
        where: The calling module, for messages, such as `` in blocks.0.attn``.
        query: As for ``scaled_dot_product_attention``, and so are the others.
        key: See there.
        value: See there.
        attn_mask: See there.
        dropout_p: See there; must be 0.
        is_causal: See there.
        scale: See there.
        enable_gqa: See there.
        **short_names: ``q``, ``k`` and ``v``.

    Raises:
        UserError: If dropout is on, or if queries, keys and values are not (images, heads, tokens, channels).
    """
    q, k, v = (short_names.get(name, given) for name, given in (("q", query), ("k", key), ("v", value)))
    if dropout_p:
        raise UserError(dropout_message(dropout_p, where))
    shapes = [tuple(each.shape) for each in (q, k, v)]
    if any(len(shape) != 4 for shape in shapes):
        raise UserError(f"attention of (images, heads, tokens, channels) was expected, got {shapes[0]}{where}")
    if enable_gqa:
        k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], dim=1) for each in (k, v))
    if not q.shape[:2] == k.shape[:2] == v.shape[:2]:
        batch = torch.broadcast_shapes(*(each.shape[:2] for each in (q, k, v)))
        q, k, v = (each.expand(*batch, *each.shape[2:]) for each in (q, k, v))
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if not hard:
        q, k, v = (each.to(kernel_dtype(each)) for each in (q, k, v))
        attn_mask = None if attn_mask is None else attn_mask.to(kernel_dtype(attn_mask))
    return SDPACall(q, k, v, attn_mask, q.shape[-1] ** -0.5 if scale is None else scale, hard)


def dropout_message(p: float, where: str) -> str:
    """Compose the error about attention weights that are dropped at random."""
    return f"attention dropout is on (p={p}){where}, so no map would be what was used: call net.eval()"


def _zero_rows(mask: Tensor | None, zero_rows: Tensor | None) -> Tensor | None:
    """Queries with zero output: those set to zero, and those whose mask leaves no key."""
    if mask is None:
        return zero_rows
    empty = (
        ~mask.any(dim=-1, keepdim=True) if mask.dtype == torch.bool else mask.amax(dim=-1, keepdim=True) == -torch.inf
    )
    if zero_rows is not None:
        return zero_rows | empty
    return empty if bool(empty.any()) else None
