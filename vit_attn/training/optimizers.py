"""Optimisers by timm's names, with parameter groups for vision transformers."""

from typing import Any

import timm.optim
import torch
from torch import nn
from torch.optim import Optimizer

from vit_attn.errors import UserError, did_you_mean
from vit_attn.training.muon import Muon

MUON_FALLBACK = ("patch_embed.*", "head.*", "*.affinity.*")
"""Parameters that Muon leaves to AdamW: it is for matrices that map tokens to tokens."""
FUSED_DEVICES = ("cpu", "cuda")
"""Devices on which Adam and AdamW are one operation."""


def build_optimizer(net: nn.Module, name: str, lr: float, weight_decay: float, layer_decay: float = 1.0) -> Optimizer:
    """Build an optimiser for all trainable parameters.

    Norms, biases and the parameters of ``net.no_weight_decay()`` are not decayed. ``muon`` updates the matrices of the
    blocks; all else, the patch embedding and the head included, is updated by AdamW at the same rate. ``muon`` and
    ``nmuon`` are :class:`vit_attn.training.muon.Muon`; ``adam`` and ``adamw`` are fused.

    Args:
        net: The network.
        name: One of ``timm.optim.list_optimizers()``, such as ``adamw`` or ``muon``.
        lr: Peak learning rate.
        weight_decay: Decay per step, as a multiple of the learning rate.
        layer_decay: Factor between the rates of a block and of the next; the head has ``lr``, the stem the smallest.

    Raises:
        UserError: If timm has no such optimiser, or if it needs second-order gradients.

    References:
        Loshchilov 2017, "Decoupled weight decay regularization", arXiv 1711.05101, for ``adamw``.
        Jordan 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    known = [str(each) for each in timm.optim.list_optimizers()]
    if name not in known:
        raise UserError(f"unknown optimizer {name!r}{did_you_mean(name, known)}")
    if timm.optim.get_optimizer_info(name).second_order:
        raise UserError(f"{name} needs second-order gradients, which training does not compute")
    fallback = MUON_FALLBACK if "muon" in name else ()
    optimizer = timm.optim.create_optimizer_v2(
        net,
        opt=name,
        lr=lr,
        weight_decay=weight_decay,
        fallback_list=fallback,
        fallback_no_weight_decay=bool(fallback),
        layer_decay=None if layer_decay == 1 else layer_decay,
    )
    for group in optimizer.param_groups:  # only timm's own schedules heed its lr_scale
        group["lr"] *= group.get("lr_scale", 1.0)
    if isinstance(optimizer, timm.optim.Muon):
        return Muon(optimizer.param_groups, **optimizer.defaults)
    if isinstance(optimizer, torch.optim.Adam):  # and AdamW, a subclass
        _fuse(optimizer)
    return optimizer


def _fuse(optimizer: Optimizer) -> None:
    """Let the optimiser update all its parameters in one operation, where there is one.

    Not by the argument ``fused``, with which it would also undo the scaling of gradients in half precision, and
    Lightning would refuse to clip them.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if all(each.device.type in FUSED_DEVICES and not hasattr(each, "to_local") for each in parameters):
        for group in optimizer.param_groups:
            group["fused"] = True
        optimizer.register_load_state_dict_pre_hook(_keep_fused)


def _keep_fused(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Load the state of an optimiser that was not fused, as older checkpoints have it, into one that is."""
    groups = state["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        return state  # which torch refuses
    fused = [{"fused": group["fused"]} for group in optimizer.param_groups]
    return state | {"param_groups": [saved | own for saved, own in zip(groups, fused, strict=True)]}


def check_settings(lr: float, weight_decay: float, warmup: float, label_smoothing: float) -> None:
    """Check the ranges of the settings of an optimisation.

    Raises:
        UserError: If one is outside.
    """
    if lr <= 0:
        raise UserError(f"lr must be above 0, got {lr}")
    if weight_decay < 0:
        raise UserError(f"weight_decay must be at least 0, got {weight_decay}")
    for name, value in (("warmup", warmup), ("label_smoothing", label_smoothing)):
        if not 0 <= value < 1:
            raise UserError(f"{name} must be in [0, 1), got {value}")
