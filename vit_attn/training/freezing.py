"""Fine-tuning: the parameters that train, and when they start to."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from timm.models import group_parameters
from torch import nn

from vit_attn.errors import UserError

TrainScope = Literal["all", "head"] | int
"""Trained part of the network: all of it, the head alone, or this many last blocks and the layers after them."""


@dataclass(frozen=True)
class Tuning:
    """Configuration of fine-tuning.

    Args:
        train: ``all``, ``head`` for a linear probe, or a number of last blocks; the layers before them are frozen.
        probe: Fraction of the run that is a linear probe, in which the head alone trains, before the rest does too.
        layer_decay: Factor between the learning rates of a block and of the next one; 1 for equal rates.

    References:
        Kumar 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv
        2202.10054, for a linear probe before fine-tuning.
        Bao 2021, "BEiT: BERT pre-training of image transformers", arXiv 2106.08254, appendix, for layer-wise decay.
    """

    train: TrainScope = "all"
    probe: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: If a number is outside, or if the options contradict each other.
        """
        if not 0 <= self.probe < 1:
            hint = "; for the head alone in the whole run: train=head" if self.probe == 1 else ""
            raise UserError(f"probe must be in [0, 1), got {self.probe}{hint}")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        if self.train == "head" and self.probe:
            raise UserError(f"train=head trains nothing but the head in the whole run: leave out probe={self.probe}")

    def trainable_names(self, net: nn.Module, linear_probe: bool = False) -> set[str]:
        """Names of the parameters that train.

        Args:
            net: The network.
            linear_probe: Whether those of the linear probe are asked for, or those after it.

        Raises:
            UserError: If the network has fewer blocks, or no method that names its head.
        """
        if self.train == "all" and not linear_probe:
            return {name for name, _ in net.named_parameters()}
        layers = _layer_indices(net)
        head = max(layers.values())
        blocks = self.train if isinstance(self.train, int) else 0
        if isinstance(self.train, int) and not 1 <= blocks < head:
            raise UserError(f"train must be all, head or a number of last blocks in 1..{head - 1}, got {self.train}")
        return {name for name, layer in layers.items() if layer >= head - (0 if linear_probe else blocks)}


def _layer_indices(net: nn.Module) -> dict[str, int]:
    """Layer of each parameter by timm's patterns: 0 the stem, then block by block, and the head last."""
    matcher: Any = getattr(net, "group_matcher", None)
    head = _head_names(net)
    if matcher is None or not head:
        raise UserError(f"{type(net).__name__} does not say which of its parameters are its head: use train=all")
    layers: Any = group_parameters(net, matcher(coarse=False), reverse=True)
    last = max(layers[name] for name in head)  # norms and pools after the blocks count as the last block's
    return {name: last if name in head else min(layer, last - 1) for name, layer in layers.items()}


def _head_names(net: Any) -> set[str]:
    """Names of the classifier's parameters; some of timm's networks have two heads."""
    heads = net.get_classifier() if hasattr(net, "get_classifier") else ()
    heads = tuple(heads) if isinstance(heads, (tuple, list)) else (heads,)
    ids = {id(parameter) for head in heads for parameter in head.parameters()}
    return {name for name, parameter in net.named_parameters() if id(parameter) in ids}


class FreezeSchedule:
    """Freezes and unfreezes parameters: first for the linear probe, if there is one, then for the rest of the run.

    Args:
        net: The network.
        tuning: Configuration of fine-tuning.

    Raises:
        UserError: If the network has fewer blocks than are to train, or no method that names its head.
    """

    def __init__(self, net: nn.Module, tuning: Tuning) -> None:
        self.net, self.in_linear_probe = net, False
        may_train = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
        self.trains_all = tuning.train == "all"
        self.trained = tuning.trainable_names(net) & may_train
        self.probed = tuning.trainable_names(net, linear_probe=True) & may_train if tuning.probe else None

    def start(self, strategy: Any = None) -> None:
        """Freeze the parameters that do not train at first.

        Raises:
            UserError: If the strategy shards parameters, and the end of a linear probe would change which ones train.
        """
        self.in_linear_probe = self.probed is not None
        replicated = strategy is None or isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
        if self.in_linear_probe and not replicated:
            raise UserError(f"probe needs one device or ddp, not {type(strategy).__name__}: train in two runs instead")
        self._set_trainable(self.probed if self.probed is not None else self.trained)

    def set_eval(self) -> None:
        """Put the frozen modules into evaluation mode: no dropout, and no running statistics that change."""
        if self.in_linear_probe or not self.trains_all:
            set_frozen_eval(self.net)

    @contextlib.contextmanager
    def unfrozen(self) -> Iterator[None]:
        """Unfreeze, inside the ``with`` block, all parameters that ever train, to build their optimiser."""
        self._set_trainable(self.trained)
        try:
            yield
        finally:
            self._set_trainable(self.probed if self.in_linear_probe and self.probed is not None else self.trained)

    def unfreeze(self, strategy: Any, module: nn.Module) -> None:
        """End the linear probe on every rank.

        Args:
            strategy: Lightning's strategy.
            module: The module that it wraps.
        """
        self.in_linear_probe = False
        self._set_trainable(self.trained)
        self.net.train()
        self.set_eval()
        renew_ddp(strategy, module)

    def _set_trainable(self, names: set[str]) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in names)


def renew_ddp(strategy: Any, module: nn.Module) -> None:
    """Wrap the module again under ddp, which asks for the parameters that train only when it wraps a module.

    Args:
        strategy: Lightning's strategy; others than ddp are left alone.
        module: The module that it wraps.
    """
    if isinstance(strategy, DDPStrategy):
        strategy.model = module
        strategy.configure_ddp()


def set_frozen_eval(net: nn.Module) -> None:
    """Put the frozen modules of a network into evaluation mode: no dropout, no running statistics that change.

    A module without parameters, such as a dropout between two modules, follows the module after it.
    """
    if not any(parameter.requires_grad for parameter in net.parameters()):
        net.eval()
        return
    frozen = False
    for child in reversed(list(net.children())):
        if parameters := list(child.parameters()):
            set_frozen_eval(child)
            frozen = not all(parameter.requires_grad for parameter in parameters)
        elif frozen:
            child.eval()
