"""Token layout of a network: number of prefix tokens, grid of patches, and pooling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.recording.hugging_face import check_token_grid, hugging_face_layout
from vit_attn.attention_maps.recording.inputs import PatchGrid, patch_grid, patches_of
from vit_attn.attention_maps.recording.layout import (
    UNKNOWN_POOL,
    HasPooling,
    HasTokenLayout,
    TokenLayout,
    registered_layout,
)
from vit_attn.attention_maps.recording.library_layouts import (
    encoder_of,
    is_open_clip,
    open_clip_layout,
    overrides_pooling,
    timm_layout,
    torchvision_layout,
)
from vit_attn.attention_maps.recording.network_checks import attends_in_windows, windowed_message
from vit_attn.errors import UserError


def token_layout(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> TokenLayout:
    """Token layout for these images, of a network of ours, timm's, torchvision's, open_clip's or Hugging Face's.

    The pooling is the one that the network's class and modules declare, or "" where a subclass or an assignment
    overrides it. A layout that :func:`register_layout` gave for the class comes first.

    Args:
        net: The network.
        images: Images (B, C, height, width), or the named tensors of a call with patches.

    Raises:
        UserError: If the network does not say, or if its tokens are no grid.
    """
    whole = getattr(net, "_orig_mod", net)  # compiled
    layout = declared_layout(whole, images)
    if not overrides_pooling(whole):
        return layout
    return layout._replace(global_pool=UNKNOWN_POOL if layout.pools_by_attention else "")


def declared_layout(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> TokenLayout:
    """Token layout as the class of a network, not compiled, declares it; arguments and errors as for `token_layout`."""
    if (by_hand := registered_layout(net, images)) is not None:
        return by_hand
    net = getattr(net, "timm_model", net)  # in a wrapper of Hugging Face's
    check_token_grid(net)
    if attends_in_windows(net):
        raise UserError(windowed_message(type(net).__name__))
    if isinstance(images, Tensor) and images.ndim != 4:
        raise UserError(f"images (B, C, height, width) were expected, got {tuple(images.shape)}")
    try:
        if isinstance(images, Mapping):
            patches = patch_grid(images)
            return _with_padding(_layout_of_class(net, _image_size(net, patches)), patches, patches_of(images))
        return _layout_of_class(net, (images.shape[-2], images.shape[-1]))
    except (AttributeError, TypeError) as error:
        name = type(net).__name__
        raise UserError(
            f"{name} does not say how its tokens are laid out ({error}): register_layout({name}, lambda net, images: "
            "TokenLayout(num_prefix_tokens=…, grid_size=…)) does, if they are the patches of a grid"
        ) from error


def _layout_of_class(net: Any, size: tuple[int, int]) -> TokenLayout:
    if hasattr(net, "config"):
        return hugging_face_layout(net, size)
    if hasattr(net, "conv_proj"):
        return torchvision_layout(net, size)
    return open_clip_layout(net, size) if is_open_clip(net) else timm_layout(net, size)


def _image_size(net: Any, patches: PatchGrid) -> tuple[int, int]:
    """Height and width of the image that a grid of the network's patches covers."""
    if hasattr(net, "config"):
        patch = getattr(net.config, "vision_config", net.config).patch_size
    else:
        body = encoder_of(net)
        patch = (body.embeds if hasattr(body, "embeds") else body.patch_embed).patch_size
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return patches.grid_size[0] * height, patches.grid_size[1] * width


def _with_padding(layout: TokenLayout, patches: PatchGrid, given: Tensor) -> TokenLayout:
    """Layout of a network that was given patches: in their order, and without those that are padding."""
    prefix = layout.num_prefix_tokens
    order = (*range(prefix), *(prefix + position for position in patches.positions))
    padding = patches.count - len(patches.positions)
    in_order = not padding and order == tuple(range(len(order)))
    size = None if given.ndim == 5 else layout.patch_size  # patches of another size are interpolated
    return layout._replace(order=None if in_order else order, num_padding_tokens=padding, patch_size=size)


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
