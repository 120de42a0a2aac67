"""Token layout of a network: number of prefix tokens, grid of patches, and pooling."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.attention_pool import AttentionPoolPrr
from timm.models.eva import Eva
from torch import Tensor, nn

from vit_attn.attention_maps.recording.hugging_face import check_token_grid, hugging_face_layout
from vit_attn.attention_maps.recording.network_checks import attends_in_windows, windowed_message
from vit_attn.errors import UserError
from vit_attn.model.vit import VisionTransformer

LIBRARIES = ("timm.", "torchvision.", "transformers.", "vit_attn.")
"""Packages whose classes pool as their attributes say."""
POOLING = ("forward", "forward_features", "forward_head", "pool")
"""Methods of those classes that determine the pooling."""
BLOCKS = (nn.ModuleList, nn.Sequential)
"""Containers of their blocks."""

UNKNOWN_POOL = "a pool by attention and perhaps more"
"""``global_pool`` of a network with an attention pool, if the output may depend on more than that, or not on it."""


@runtime_checkable
class HasTokenLayout(Protocol):
    """Token layout, recording or attention summary: the grid of patches and their size in pixels."""

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        ...

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    @property
    def patch_size(self) -> tuple[int, int] | None:
        """Height and width of a patch in pixels; none if unknown."""
        ...


@runtime_checkable
class HasPooling(HasTokenLayout, Protocol):
    """Token layout or recording: the pooling, too."""

    @property
    def num_tokens(self) -> int:
        """Number of prefix tokens and patches."""
        ...

    @property
    def global_pool(self) -> str:
        """Pooling, as in ``Recording``."""
        ...

    @property
    def pool_include_prefix(self) -> bool:
        """True if prefix tokens are pooled, too."""
        ...

    @property
    def pooled(self) -> Float[Tensor, " N"] | None:
        """Fraction of each token in the pooled features, where ``global_pool`` does not determine it."""
        ...


class TokenLayout(NamedTuple):
    """Token layout of one forward; names and meanings as in ``Recording``."""

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str
    pool_include_prefix: bool = False
    patch_size: tuple[int, int] | None = None
    pooled: Float[Tensor, " N"] | None = None

    @property
    def num_tokens(self) -> int:
        """Number of prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def pools_by_attention(self) -> bool:
        """True if the last attention is a pool and not a layer."""
        return is_attention_pool(self.global_pool)


def is_attention_pool(global_pool: str) -> bool:
    """Tell whether a ``global_pool`` is by attention: from one query, or from all tokens to all."""
    return global_pool in ("map", UNKNOWN_POOL, "prr token", "prr avg")


def token_layout(net: nn.Module, images: Tensor) -> TokenLayout:
    """Token layout for these images, of a network of ours, timm's, torchvision's or Hugging Face's.

    The pooling is the one that the network's class and modules declare, or "" where a subclass or an assignment
    overrides it.

    Raises:
        UserError: If the network does not say, or if its tokens are no grid.
    """
    whole = net = getattr(net, "_orig_mod", net)  # compiled
    net = getattr(net, "timm_model", net)  # in a wrapper of Hugging Face's
    check_token_grid(net)
    if attends_in_windows(net):
        raise UserError(windowed_message(type(net).__name__))
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
    if not overrides_pooling(whole):
        return layout
    return layout._replace(global_pool=UNKNOWN_POOL if layout.pools_by_attention else "")


def _torchvision(net: Any, size: tuple[int, int]) -> TokenLayout:
    patch = net.patch_size
    return TokenLayout(1, (size[0] // patch, size[1] // patch), "token", patch_size=(patch, patch))


def _timm(net: Any, size: tuple[int, int]) -> TokenLayout:
    """Token layout of a network of ours or timm's, or of another with the same attributes."""
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
    pools_all = isinstance(net, Eva) and pool == "map"  # without an attribute that says so
    include = getattr(net, "pool_include_prefix", pools_all)
    return TokenLayout(net.num_prefix_tokens, (rows, cols), pool, include, patch)


def _timm_pool(net: Any) -> str:
    """Pooling of such a network: its attention pool if it has one, whatever ``global_pool`` was set to since."""
    pool, module = net.global_pool, getattr(net, "attn_pool", None)
    if module is None or not _is_library_class(net):
        return pool
    if isinstance(net, VisionTransformer) and pool in ("", "token"):
        return pool
    if not type(module).__module__.startswith(LIBRARIES) or _is_overridden(module, "forward"):
        return ""
    return f"prr {module.pool}" if isinstance(module, AttentionPoolPrr) else "map"


def overrides_pooling(net: nn.Module) -> bool:
    """Tell whether a subclass or an assignment overrides how a library's network pools."""
    return _is_library_class(net) and any(
        _is_overridden(module, name) for module in _modules_around_blocks(net) for name in POOLING
    )


def _is_library_class(net: nn.Module) -> bool:
    return any(base.__module__.startswith(LIBRARIES) for base in type(net).__mro__)


def _modules_around_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Iterate over the module and the modules within it down to the container of the blocks."""
    yield module
    for child in module.children():
        if not isinstance(child, BLOCKS) and any(isinstance(m, BLOCKS) and _attends(m) for m in child.modules()):
            yield from _modules_around_blocks(child)


def _attends(module: nn.Module) -> bool:
    return any(part in type(each).__name__.lower() for each in module.modules() for part in ("attention", "attn"))


def _is_overridden(module: nn.Module, name: str) -> bool:
    """Tell whether a method of this name is defined outside the libraries."""
    method = vars(module).get(name, inspect.getattr_static(type(module), name, None))
    return callable(method) and not str(getattr(method, "__module__", "")).startswith((*LIBRARIES, "torch."))


def crop_to_patches(pixels: np.ndarray, layout: HasTokenLayout) -> np.ndarray:
    """Crop images to the part that the patches cover; pad them with black where the patches cover more.

    Patches start at the upper left: of 150 pixels, 9 patches of 16 cover 144. A map is drawn over that part.

    Args:
        pixels: One or more images, (…, height, width, channels).
        layout: A token layout, a recording or an attention summary.
    """
    if layout.patch_size is None:
        return pixels
    height, width = (count * size for count, size in zip(layout.grid_size, layout.patch_size, strict=True))
    part = pixels[..., :height, :width, :]
    beyond = (height - part.shape[-3], width - part.shape[-2])
    return np.pad(part, [(0, 0)] * (part.ndim - 3) + [(0, beyond[0]), (0, beyond[1]), (0, 0)]) if any(beyond) else part


def patches_to_pixels(
    values: Float[Tensor, "B P"], layout: HasTokenLayout, size: tuple[int, int], outside: float
) -> Float[Tensor, "B 1 height width"]:
    """Repeat each patch's value over its pixels.

    Args:
        values: One value per patch.
        layout: The grid and the size of the patches.
        size: Height and width of the image in pixels.
        outside: Value of pixels that no patch covers.
    """
    grid = values.unflatten(-1, layout.grid_size).unsqueeze(1)
    if layout.patch_size is None:
        return F.interpolate(grid, size=size, mode="nearest")
    for axis, each in zip((-2, -1), layout.patch_size, strict=True):
        grid = grid.repeat_interleave(each, dim=axis)
    below, right = size[0] - grid.shape[-2], size[1] - grid.shape[-1]  # negative ones cut
    return F.pad(grid, (0, right, 0, below), value=outside)


def pooling_row(layout: HasPooling) -> Float[Tensor, " N"] | None:
    """Fraction of each token in the pooled features; none if it is not the same for all images, or not known."""
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
