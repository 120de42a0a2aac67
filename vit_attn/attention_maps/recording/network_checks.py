"""Checks of a network and its inputs before it is recorded; each error says what to do instead."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vit_attn.attention_maps.recording.attention_modules import attention_modules, module_names
from vit_attn.attention_maps.recording.inputs import patches_of
from vit_attn.attention_maps.recording.layout import is_registered
from vit_attn.attention_maps.recording.library_layouts import is_open_clip
from vit_attn.errors import UserError

LAYOUT_SIGNS = ("patch_embed", "embeds", "conv_proj", "config")
"""Attributes of which each family's networks have at least one, and a wrapper around a network has none."""

WINDOWED = ("Swin", "DonutSwin", "MaskFormerSwin", "VisionTransformerSAM", "SamVision", "Hiera")
"""Beginnings of the names of the classes of networks that attend within windows of a grid of tokens."""


def check_network(net: Any) -> None:
    """Refuse a wrapper around a network, and one that runs outside Python.

    Raises:
        UserError: If it is no module, or scripted, or a wrapper.
    """
    if not isinstance(net, nn.Module):
        raise UserError(f"a network (nn.Module) was expected, got {type(net).__name__}")
    if isinstance(net, torch.jit.ScriptModule):
        raise UserError("a scripted network (torch.jit) runs unseen: use the network that it was scripted from")
    if path := find_wrapped_network(net):
        raise UserError(
            f"{type(net).__name__} only wraps the network: use its .{path} instead, and call that or the wrapper"
        )


def attends_in_windows(net: Any) -> bool:
    """Tell by the name of its class whether a network attends within windows of a grid of tokens."""
    net = getattr(net, "_orig_mod", net)  # compiled
    kinds = type(getattr(net, "timm_model", net)).__mro__  # in a wrapper of Hugging Face's
    return any(kind.__name__.startswith(WINDOWED) for kind in kinds)


def windowed_message(network: str) -> str:
    """Compose the error about what follows tokens through all layers, for a network that attends within windows.

    Args:
        network: Name of its class.
    """
    return (
        f"{network} attends within windows, or merges its tokens from stage to stage, so no rollout, relevance, LeGrad "
        "or flow follows a token through it: see the raw maps of a layer, in Python `with record(net) as recording: "
        "net(images)`, then recording[layer].token_map(row, col)"
    )


def find_wrapped_network(net: nn.Module) -> str:
    """Find the network within a wrapper; return its path, such as ``module`` or ``net``, or "" if ``net`` is none.

    What is wrapped holds all the attention modules: a part of a network with stages is not it.
    """
    if _has_layout(net):
        return ""
    try:
        attentions = set(attention_modules(net))
    except UserError:  # reported when it is recorded
        attentions = set()
    for path, module in net.named_modules():
        if module is not net and _has_layout(module) and not isinstance(module, torch.jit.ScriptModule):
            if attentions <= set(module.modules()):
                return path
    return ""


def check_parameters(net: nn.Module) -> None:
    """Refuse a network without weights.

    Raises:
        UserError: If it is on the meta device.
    """
    parameters = (each for module in module_names(net) for each in module._parameters.values())
    if any(each is not None and each.is_meta for each in parameters):
        raise UserError(
            f"{type(net).__name__} is on the meta device, which holds no weights: create it on a device, or load some"
        )


def check_batch(images: Any) -> None:
    """Check that the images are a batch of the shape (B, C, height, width), or a call's named tensors with patches.

    Raises:
        UserError: If they are not, or if the batch is empty or on the meta device.
    """
    if isinstance(images, Mapping):
        patches = patches_of(images)
        if patches.ndim not in (3, 5) or not patches.numel():
            raise UserError(f"patches must be (batch, patches, pixels), got {tuple(patches.shape)}")
        return
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a tensor (batch, channels, height, width), got {type(images).__name__}")
    if images.ndim != 4 or not images.numel():
        hint = ": add an axis, images[None]" if images.ndim == 3 else ""
        raise UserError(f"images must be (batch, channels, height, width), got {tuple(images.shape)}{hint}")
    if images.is_meta:
        raise UserError("images on the meta device have no pixels")


def input_mismatch(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> str:
    """Explain why a network does not take images, by dtype, channels or device; "" if none of these is the reason."""
    if isinstance(images, Mapping):
        return ""
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


def uses_gradient_checkpointing(net: nn.Module) -> bool:
    """Tell whether the network recomputes its attention in the backward pass."""
    return any(
        getattr(module, "grad_checkpointing", False)
        or (getattr(module, "gradient_checkpointing", False) and module.training)
        for module in net.modules()
    )


def unseen_hint(net: nn.Module) -> str:
    """Advise how to make attention modules call fused attention, after a colon; else name what can be recorded."""
    implementation = getattr(getattr(net, "config", None), "_attn_implementation", "sdpa")
    if implementation != "sdpa" and getattr(net, "_supports_sdpa", True):
        return f': load the network with attn_implementation="sdpa", it has {implementation!r}'
    if any(getattr(module, "fused_attn", True) is False for module in net.modules()):
        return ": set fused_attn = True on these modules, or create the network without TIMM_FUSED_ATTN=0"
    return "; what can be recorded is a call of it, or a softmax whose result is multiplied with the values"


def _has_layout(module: nn.Module) -> bool:
    own = {*vars(module), *vars(module).get("_modules", {})}
    if any(sign in own for sign in LAYOUT_SIGNS) or is_registered(module) or is_open_clip(module):
        return True
    encoder = vars(module).get("_modules", {}).get("encoder")
    return encoder is not None and hasattr(module, "forward_head") and _has_layout(encoder)  # timm's classifiers
