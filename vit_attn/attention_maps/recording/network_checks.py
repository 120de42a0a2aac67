"""Networks that cannot be watched as they are, and what to do instead."""

from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.errors import UserError

LAYOUT_SIGNS = ("patch_embed", "conv_proj", "config")
"""Attributes of which each family's networks have one; what wraps a network has none of its own."""


def check_network(net: Any) -> None:
    """Refuse what only holds a network, or runs it where Python does not see it.

    Raises:
        UserError: If it is no module, or scripted, or a wrapper.
    """
    if not isinstance(net, nn.Module):
        raise UserError(f"a network (nn.Module) was expected, got {type(net).__name__}")
    if isinstance(net, torch.jit.ScriptModule):
        raise UserError("a scripted network (torch.jit) runs unseen: use the network that it was scripted from")
    if path := wrapped(net):
        raise UserError(
            f"{type(net).__name__} only wraps the network: use its .{path} instead, and call that or the wrapper"
        )


def wrapped(net: nn.Module) -> str:
    """Path to the network within a wrapper, such as ``module`` or ``net``; nothing if it is none."""
    if _says_layout(net):
        return ""
    for path, module in net.named_modules():
        if module is not net and _says_layout(module) and not isinstance(module, torch.jit.ScriptModule):
            return path
    return ""


def check_parameters(net: nn.Module) -> None:
    """Refuse a network whose weights are not there.

    Raises:
        UserError: If it is on the meta device.
    """
    if any(each.is_meta for each in net.parameters()):
        raise UserError(
            f"{type(net).__name__} is on the meta device, which holds no weights: create it on a device, or load some"
        )


def check_batch(images: Any) -> None:
    """Refuse what is no batch of images.

    Raises:
        UserError: If it is none, or an empty one, or holds no numbers.
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a tensor (batch, channels, height, width), got {type(images).__name__}")
    if images.ndim != 4 or not images.numel():
        hint = ": add an axis, images[None]" if images.ndim == 3 else ""
        raise UserError(f"images must be (batch, channels, height, width), got {tuple(images.shape)}{hint}")
    if images.is_meta:
        raise UserError("images on the meta device have no pixels")


def misfit(net: nn.Module, images: Tensor) -> str:
    """Why a network does not take images, where that can be seen from outside."""
    if not images.is_floating_point():
        return f"images must be normalised floats, got {images.dtype}: divide by 255 and normalise them"
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return ""
    if (wanted := first.in_channels) != images.shape[1]:
        return f"{type(net).__name__} takes images of {wanted} channels, got {tuple(images.shape)}"
    if (weight := first.weight).dtype != images.dtype or weight.device != images.device:
        found = f"{images.dtype} on {images.device}"
        return f"{type(net).__name__} is in {weight.dtype} on {weight.device}, the images are in {found}: move them"
    return ""


def recomputes(net: nn.Module) -> bool:
    """Whether gradient checkpointing runs its attention once more in the backward pass."""
    return any(
        getattr(module, "grad_checkpointing", False)
        or (getattr(module, "gradient_checkpointing", False) and module.training)
        for module in net.modules()
    )


def unseen_hint(net: nn.Module) -> str:
    """What to do about attention that does not call fused attention, after a colon; nothing if that is not known."""
    implementation = getattr(getattr(net, "config", None), "_attn_implementation", "sdpa")
    if implementation != "sdpa":
        return f': load the network with attn_implementation="sdpa", it has {implementation!r}'
    if any(getattr(module, "fused_attn", True) is False for module in net.modules()):
        return ": set fused_attn = True on these modules, or create the network without TIMM_FUSED_ATTN=0"
    return ""


def _says_layout(module: nn.Module) -> bool:
    own = {*vars(module), *vars(module).get("_modules", {})}
    return any(sign in own for sign in LAYOUT_SIGNS)
