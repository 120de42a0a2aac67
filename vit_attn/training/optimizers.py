"""Optimisers by timm's names, with the parameter groups that vision transformers want."""

import timm.optim
from torch import nn
from torch.optim import Optimizer

from vit_attn.errors import UserError, did_you_mean

MUON_FALLBACK = ("patch_embed.*", "head.*", "*.affinity.*")
"""What does not map tokens to tokens; Muon is for the matrices that do."""


def build_optimizer(net: nn.Module, name: str, lr: float, weight_decay: float, layer_decay: float = 1.0) -> Optimizer:
    """An optimiser for all trainable parameters.

    Norms, biases and what ``net.no_weight_decay()`` names are not decayed. ``muon`` works on the matrices inside the
    network and leaves all else, the patch embedding and the head included, to AdamW at the same rate.

    Args:
        net: The network.
        name: One of ``timm.optim.list_optimizers()``, such as ``adamw`` or ``muon``.
        lr: Learning rate at the top of its schedule.
        weight_decay: Decay a step, as a multiple of the learning rate.
        layer_decay: By what the rate of a block is smaller than that of the next; the head has ``lr``, the stem least.

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
    return optimizer
