"""Which tokens a network's output is computed from, measured: the gradient of a random projection by the tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.layout import Layout
from vit_attn.attention_maps.recording import AttentionCall

TOLERANCE = 1e-2
"""Of the largest gradient: tokens of a mean have the same one, up to rounding in 16 bits."""


class TokenReading:
    """Watches for the last module that gives all tokens, and says how the output reads them."""

    def __init__(self) -> None:
        self.last: dict[int, Tensor] = {}

    def begin(self) -> None:
        """A forward begins."""
        self.last.clear()

    def see(self, output: Any) -> None:
        """A module gave this; what has a graph is kept if it may be tokens, the last of each number of them."""
        if isinstance(output, Tensor) and output.ndim == 3 and output.requires_grad:
            self.last[output.shape[1]] = output

    def checked(self, layout: Layout, output: Any) -> Layout:
        """The layout with what was measured in place of what the class says; as it was where nothing can be measured.

        Nothing can be where no graph was recorded, where the head is all zeros, or where the output is all tokens.
        """
        tokens, pooled = self.last.get(layout.num_tokens), _pooled(output)
        self.last.clear()
        if layout.pools_by_attention or tokens is None or pooled is None or not pooled.requires_grad:
            return layout
        gradient = _projected_gradient(pooled, tokens)
        if gradient is None or not gradient.any():
            return layout
        return _measured(layout, gradient)


def layout_with_pool(layout: Layout, calls: Sequence[tuple[str, AttentionCall]]) -> Layout:
    """The layout, with what the calls show of a pool: the last attention, from one query where others have many."""
    asking = [call.q.shape[2] for _, call in calls]
    found = asking[-1] == 1 < layout.num_tokens and len(asking) > 1 and 1 not in asking[:-1]
    if not found:
        return layout
    return layout._replace(global_pool="map", pool_include_prefix=calls[-1][1].k.shape[2] == layout.num_tokens)


def _projected_gradient(pooled: Float[Tensor, "B K"], tokens: Float[Tensor, "B N D"]) -> Tensor | None:
    generator = torch.Generator().manual_seed(0)  # of its own: the random state stays as it is
    projection = torch.randn(pooled.shape[-1], generator=generator).to(pooled.device, pooled.dtype)
    with torch.enable_grad():
        value = (pooled * projection).sum()
    (gradient,) = torch.autograd.grad(value, [tokens], retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.detach().float()


def _measured(layout: Layout, gradient: Float[Tensor, "B N D"]) -> Layout:
    prefix, sizes = layout.num_prefix_tokens, gradient.abs().amax(dim=(0, 2))
    read = (sizes > 1e-6 * sizes.max()).tolist()
    before, patches = read[:prefix], read[prefix:]
    if not any(patches):
        if read == [True] + [False] * (len(read) - 1):
            return layout._replace(global_pool="token", pooled=None)
        row = torch.tensor(read, dtype=torch.float32)
        return layout._replace(global_pool="prefix" if all(before) else "tokens", pooled=row / row.sum())
    if not all(patches) or not _equal(gradient[:, prefix:]):
        return layout._replace(global_pool="unequal parts of its tokens", pooled=None)
    if not any(before):
        return layout._replace(global_pool="avg", pool_include_prefix=False, pooled=None)
    if all(before) and _equal(gradient):
        return layout._replace(global_pool="avg", pool_include_prefix=True, pooled=None)
    if before == [True] + [False] * (prefix - 1):
        return layout._replace(global_pool="token+avg", pool_include_prefix=False, pooled=None)
    return layout._replace(global_pool="unequal parts of its tokens", pooled=None)


def _equal(gradient: Float[Tensor, "B N D"]) -> bool:
    """Whether the tokens of each image have the same gradient."""
    mean = gradient.mean(dim=1, keepdim=True)
    return bool((gradient - mean).abs().amax() <= TOLERANCE * mean.abs().amax())


def _pooled(output: Any) -> Tensor | None:
    """What the network says of each image, of all that it returned: logits, or what its pooler gave."""
    named = [getattr(output, name, None) for name in ("logits", "pooler_output", "image_embeds")]
    listed = list(output) if isinstance(output, (tuple, list)) else []
    found = (x for x in (output, *named, *listed) if isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point())
    return next(found, None)
