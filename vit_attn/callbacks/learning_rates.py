"""Learning rates by part of the network."""

import re
from typing import Any

import lightning as L
from torch import nn
from torch.optim import Optimizer

from vit_attn.callbacks.tags import LEARNING_RATE
from vit_attn.callbacks.trainer_state import logging_step
from vit_attn.training.metrics import is_logging_step

RATE, PART_RATES = "train/learning_rate", LEARNING_RATE
"""Tag of the rate of the whole network, or of its head, and group of those of its parts where they differ."""


class LearningRates(L.Callback):
    """Logs one learning rate where all parts of the network have the same, and else one for each part.

    ``train/learning_rate`` is the highest rate, that of the head. Where layers have different rates
    (``--model.layer_decay``), ``vit_learning_rate/stem``, ``…/block_1`` and so on to ``…/head`` are those of the parts:
    what lies before the blocks, each block, and what lies after them.
    """

    def __init__(self) -> None:
        self.parts: dict[str, list[int]] = {}
        """Indices of the optimiser's parameter groups by part of the network."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the parameter groups of each part."""
        self.parts = find_parts(getattr(pl_module, "net", pl_module), trainer.optimizers[0])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates of the step that begins, where its values are logged."""
        if not is_logging_step(trainer):
            return
        rates = part_rates(self.parts, trainer.optimizers[0])
        for logger in trainer.loggers:
            logger.log_metrics(rates, logging_step(trainer))


def find_parts(net: nn.Module, optimizer: Optimizer) -> dict[str, list[int]]:
    """Find the parameter groups of an optimiser that hold parameters of each part of a network.

    Args:
        net: The network.
        optimizer: Its optimiser.
    """
    names = {id(parameter): part_of(name) for name, parameter in net.named_parameters()}
    parts: dict[str, set[int]] = {}
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            parts.setdefault(names.get(id(parameter), "head"), set()).add(index)
    order = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    return {name: sorted(parts[name]) for name in sorted(parts, key=lambda each: order.get(each, len(order)))}


def part_of(name: str) -> str:
    """Return the part of a network that a parameter belongs to, by timm's names.

    >>> [part_of(name) for name in ("patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.bias", "norm.weight")]
    ['stem', 'stem', 'block_1', 'head']
    """
    if found := re.match(r"(?:.*\.)?blocks\.(\d+)\.", name):
        return f"block_{int(found[1]) + 1}"
    return "head" if re.match(r"(norm|fc_norm|attn_pool|head|head_drop|head_dist)\b", name) else "stem"


def part_rates(parts: dict[str, list[int]], optimizer: Optimizer) -> dict[str, float]:
    """Return the learning rates by tag; a part whose parameter groups differ has the highest.

    Args:
        parts: Parameter groups by part.
        optimizer: The optimiser.
    """
    groups = optimizer.param_groups
    rates = {part: max(float(groups[index]["lr"]) for index in indices) for part, indices in parts.items()}
    highest = {RATE: max(rates.values())}
    return (
        highest if len(set(rates.values())) == 1 else highest | {f"{PART_RATES}/{part}": rates[part] for part in rates}
    )
