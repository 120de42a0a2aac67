"""How the tokens of a network are laid out: how many come before the patches, the grid, and what is pooled."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.attention_pool import AttentionPoolPrr
from timm.models.eva import Eva
from torch import Tensor, nn

from vit_attn.attention_maps.recording.hugging_face import hugging_face_layout, refuse_by_name
from vit_attn.errors import UserError
from vit_attn.model.vit import VisionTransformer

LIBRARIES = ("timm.", "torchvision.", "transformers.", "vit_attn.")
"""Where the classes come from whose attributes say truly what they pool."""
POOLING = ("forward", "forward_features", "forward_head", "pool")
"""Methods of those classes that decide what is pooled."""
BLOCKS = (nn.ModuleList, nn.Sequential)
"""What they keep their blocks in."""

UNKNOWN_POOL = "a pool by attention and perhaps more"
"""Of a network that has such a pool, where it is not known whether the output comes from it."""


class TokenLayout(NamedTuple):
    """The tokens of one forward; names and meanings as in ``Recording``."""

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str
    pool_include_prefix: bool = False
    patch_size: tuple[int, int] | None = None
    pooled: Float[Tensor, " N"] | None = None

    @property
    def num_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def pools_by_attention(self) -> bool:
        """Whether the last attention is a pool and no layer."""
        return by_attention(self.global_pool)


def by_attention(global_pool: str) -> bool:
    """Whether a network with this ``global_pool`` pools by attention: from one query, or from all tokens to all."""
    return global_pool in ("map", UNKNOWN_POOL, "prr token", "prr avg")


def layout_of(net: nn.Module, images: Tensor) -> TokenLayout:
    """The layout for these images, of a network of ours, timm's, torchvision's or Hugging Face's.

    What is pooled is what the network's class and its modules say, or "" where a subclass or an assignment rewrote it.

    Raises:
        UserError: If the network does not say, or if its tokens are no grid.
    """
    whole = net = getattr(net, "_orig_mod", net)  # compiled
    net = getattr(net, "timm_model", net)  # in a wrapper of Hugging Face's
    refuse_by_name(net)
    if images.ndim != 4:
        raise UserError(f"images (B, C, height, width) were expected, got {tuple(images.shape)}")
    size: tuple[int, int] = (images.shape[-2], images.shape[-1])
    try:
        if hasattr(net, "config"):
            layout = TokenLayout(*hugging_face_layout(net, size))
        elif hasattr(net, "conv_proj"):
            layout = _torchvision(net, size)
        else:
            layout = _timm(net, size)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{type(net).__name__} does not say how its tokens are laid out: {error}") from error
    if not rewritten(whole):
        return layout
    return layout._replace(global_pool=UNKNOWN_POOL if layout.pools_by_attention else "")


def _torchvision(net: Any, size: tuple[int, int]) -> TokenLayout:
    patch = net.patch_size
    return TokenLayout(1, (size[0] // patch, size[1] // patch), "token", patch_size=(patch, patch))


def _timm(net: Any, size: tuple[int, int]) -> TokenLayout:
    """A network of ours or timm's, or another with its attributes."""
    embed: Any = net.embeds if hasattr(net, "embeds") else net.patch_embed  # NaFlexViT's takes any size
    if hasattr(embed, "dynamic_feat_size"):
        rows, cols = embed.dynamic_feat_size(size)
        patch = tuple(embed.feat_ratio(as_scalar=False))
    elif hasattr(net, "embeds"):
        patch = embed.patch_size
        rows, cols = size[0] // patch[0], size[1] // patch[1]
    else:
        rows, cols = embed.grid_size
        patch = (size[0] // rows, size[1] // cols) if size[0] % rows == 0 == size[1] % cols else None
    pool = "prefix" if hasattr(net, "head_dist") else _timm_pool(net)  # two heads, averaged
    takes_all = isinstance(net, Eva) and pool == "map"  # and says nothing of it
    include = getattr(net, "pool_include_prefix", takes_all)
    return TokenLayout(net.num_prefix_tokens, (rows, cols), pool, include, patch)


def _timm_pool(net: Any) -> str:
    """What such a network pools: by its attention if it has any for that, whatever ``global_pool`` was set to since."""
    pool, by = net.global_pool, getattr(net, "attn_pool", None)
    if by is None or not _of_library(net):
        return pool
    if isinstance(net, VisionTransformer) and pool in ("", "token"):
        return pool
    if not type(by).__module__.startswith(LIBRARIES) or _replaced(by, "forward"):
        return ""
    return f"prr {by.pool}" if isinstance(by, AttentionPoolPrr) else "map"


def rewritten(net: nn.Module) -> bool:
    """Whether a subclass, or an assignment, replaced how a library's network pools, in it or around its blocks."""
    return _of_library(net) and any(_replaced(module, name) for module in _holders(net) for name in POOLING)


def _of_library(net: nn.Module) -> bool:
    return any(base.__module__.startswith(LIBRARIES) for base in type(net).__mro__)


def _holders(module: nn.Module) -> Iterator[nn.Module]:
    """The module, and those in it down to the list of its blocks."""
    yield module
    for child in module.children():
        if not isinstance(child, BLOCKS) and any(isinstance(m, BLOCKS) and _attends(m) for m in child.modules()):
            yield from _holders(child)


def _attends(module: nn.Module) -> bool:
    return any(part in type(each).__name__.lower() for each in module.modules() for part in ("attention", "attn"))


def _replaced(module: nn.Module, name: str) -> bool:
    """Whether a method of this name is not a library's."""
    method = vars(module).get(name, inspect.getattr_static(type(module), name, None))
    return callable(method) and not str(getattr(method, "__module__", "")).startswith((*LIBRARIES, "torch."))


def covered(pixels: np.ndarray, layout: Any) -> np.ndarray:
    """The part of an image, (height, width, channels), that the patches cover; black where they cover more.

    Patches begin at the upper left: of 150 pixels, 9 patches of 16 see 144. What is drawn in a grid of patches over the
    image is drawn over that part.

    Args:
        pixels: One image, or several: what comes last are height, width and channels.
        layout: A layout, a recording or a view.
    """
    if layout.patch_size is None:
        return pixels
    height, width = (count * size for count, size in zip(layout.grid_size, layout.patch_size, strict=True))
    part = pixels[..., :height, :width, :]
    beyond = (height - part.shape[-3], width - part.shape[-2])
    return np.pad(part, [(0, 0)] * (part.ndim - 3) + [(0, beyond[0]), (0, beyond[1]), (0, 0)]) if any(beyond) else part


def on_pixels(values: Float[Tensor, "B P"], layout: TokenLayout, size: tuple[int, int], beside: float) -> Tensor:
    """One value a patch as one a pixel, (B, 1, height, width), and another for pixels that no patch covers."""
    grid = values.unflatten(-1, layout.grid_size).unsqueeze(1)
    if layout.patch_size is None:
        return F.interpolate(grid, size=size, mode="nearest")
    for axis, each in zip((-2, -1), layout.patch_size, strict=True):
        grid = grid.repeat_interleave(each, dim=axis)
    below, right = size[0] - grid.shape[-2], size[1] - grid.shape[-1]  # negative ones cut
    return F.pad(grid, (0, right, 0, below), value=beside)


def pooled_row(layout: Any) -> Float[Tensor, " N"] | None:
    """The fraction of each token in what is pooled, of a layout or a recording; none where that is no fixed row."""
    if layout.pooled is not None:
        return layout.pooled
    prefix, row = layout.num_prefix_tokens, torch.zeros(layout.num_tokens, dtype=torch.float32, device="cpu")
    if layout.global_pool in ("token", "token+avg"):
        row[0] = 1.0
    if layout.global_pool in ("avg", "token+avg"):
        first = 0 if layout.pool_include_prefix else prefix
        row[first:] += 1.0 / (layout.num_tokens - first)
    if layout.global_pool == "prefix":
        row[:prefix] = 1.0
    return row / row.sum() if row.any() else None
