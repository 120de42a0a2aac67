"""Pooling that the gradient of a network's output with respect to its last tokens shows."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vit_attn.attention_maps.recording.layout import TokenLayout

UNEQUAL_TOKENS = "unequal parts of its tokens"
TOKEN_DIFFERENCE = "a difference of its tokens"
TOLERANCE = 1e-2
"""Relative to the largest gradient: tokens of a mean have the same one, up to rounding in 16 bits."""


def tokens_with_gradient(gradient: Float[Tensor, "B N D"]) -> Bool[Tensor, " N"]:
    """Mask of the tokens whose gradient is not zero."""
    sizes = gradient.abs().amax(dim=(0, 2))
    return sizes > 1e-6 * sizes.max()


def pooling_from_gradient(layout: TokenLayout, gradient: Float[Tensor, "B N D"]) -> TokenLayout:
    """Layout with the pooling that a gradient by the last tokens shows."""
    prefix, read = layout.num_prefix_tokens, tokens_with_gradient(gradient).tolist()
    read_prefix, read_patches = read[:prefix], read[prefix:]
    if any(read_patches):
        if not all(read_patches) or not _is_equal(gradient[:, prefix:]):
            return layout._replace(global_pool=UNEQUAL_TOKENS, pooled=None)
        if not any(read_prefix) or (all(read_prefix) and _is_equal(gradient)):
            return layout._replace(global_pool="avg", pool_include_prefix=any(read_prefix), pooled=None)
    elif read == [True] + [False] * (len(read) - 1):
        return layout._replace(global_pool="token", pooled=None)
    prefix_tokens = [token for token in range(prefix) if read_prefix[token]]
    return _weighted_pooling(layout, gradient, prefix_tokens, any(read_patches))


def _weighted_pooling(
    layout: TokenLayout, gradient: Float[Tensor, "B N D"], prefix_tokens: list[int], patches: bool
) -> TokenLayout:
    """Layout of a network that reads prefix tokens, concatenated with each other or with the mean over the patches."""
    prefix = layout.num_prefix_tokens
    terms = [gradient[:, token] for token in prefix_tokens]
    terms += [gradient[:, prefix:].sum(dim=1)] if patches else []
    factors = _linear_factors(torch.stack(terms).flatten(1))
    if factors is not None and (factors < 0).any():
        return layout._replace(global_pool=TOKEN_DIFFERENCE, pooled=None)
    if patches and prefix_tokens == [0] and (factors is None or (factors - 0.5).abs().amax() <= TOLERANCE):
        return layout._replace(global_pool="token+avg", pool_include_prefix=False, pooled=None)
    if patches and factors is None:
        return layout._replace(global_pool=UNEQUAL_TOKENS, pooled=None)
    if factors is None:
        factors = torch.full((len(terms),), 1 / len(terms), dtype=torch.float32, device="cpu")
    row = torch.zeros(layout.num_tokens, dtype=torch.float32, device="cpu")
    row[prefix_tokens] = factors[: len(prefix_tokens)]
    if patches:
        row[prefix:] = factors[-1] / (layout.num_tokens - prefix)
    only_prefix = not patches and len(prefix_tokens) == prefix
    return layout._replace(global_pool="prefix" if only_prefix else "tokens", pooled=row)


def _linear_factors(terms: Float[Tensor, "terms _"]) -> Float[Tensor, " terms"] | None:
    """Factors of a weighted sum, of which all terms' gradients are multiples of one; None if they are not."""
    largest = terms[terms.abs().amax(dim=1).argmax()]
    multiples = (terms * largest).sum(dim=1) / largest.square().sum()
    residual = (terms - multiples[:, None] * largest).abs().amax(dim=1)
    if (residual > TOLERANCE * terms.abs().amax(dim=1)).any():
        return None
    return (multiples / multiples.abs().sum()).cpu()


def _is_equal(gradient: Float[Tensor, "B N D"]) -> bool:
    """Tell whether the tokens of each image have the same gradient."""
    mean = gradient.mean(dim=1, keepdim=True)
    return bool((gradient - mean).abs().amax() <= TOLERANCE * mean.abs().amax())
