"""Fine-tuning: which part of a network trains, and from when."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from timm.models import group_parameters
from torch import nn

from vit_attn.errors import UserError

TrainScope = Literal["all", "head"] | int
"""What trains: everything, the head alone, or the last so many blocks and all that comes after them."""


@dataclass(frozen=True)
class Tuning:
    """How much of a trained network a run changes.

    Args:
        train: ``all``, ``head`` for a linear probe, or a number of last blocks; what comes before stays as it was.
        probe: Share of the run in which the head alone trains, before the rest does too.
        layer_decay: By what the learning rate of a block is smaller than that of the block after it; 1 for all alike.

    References:
        Kumar 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv
        2202.10054, for the head first and then all.
        Bao 2021, "BEiT: BERT pre-training of image transformers", arXiv 2106.08254, appendix, for layer-wise decay.
    """

    train: TrainScope = "all"
    probe: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            UserError: If so.
        """
        if not 0 <= self.probe < 1:
            hint = "; for the head alone in the whole run: train=head" if self.probe == 1 else ""
            raise UserError(f"probe must be in [0, 1), got {self.probe}{hint}")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        if self.train == "head" and self.probe:
            raise UserError(f"train=head trains nothing but the head in the whole run: leave out probe={self.probe}")

    def names(self, net: nn.Module, probing: bool = False) -> set[str]:
        """Names of the parameters that train, in the probe or after it.

        Raises:
            UserError: If the network has not so many blocks, or if it does not say which its head is.
        """
        if self.train == "all" and not probing:
            return {name for name, _ in net.named_parameters()}
        layers = _layers(net)
        head = max(layers.values())
        blocks = self.train if isinstance(self.train, int) else 0
        if isinstance(self.train, int) and not 1 <= blocks < head:
            raise UserError(f"train must be all, head or a number of last blocks in 1..{head - 1}, got {self.train}")
        return {name for name, layer in layers.items() if layer >= head - (0 if probing else blocks)}


def _layers(net: nn.Module) -> dict[str, int]:
    """The layer of each parameter by timm's own patterns: 0 the stem, then block by block, and the head last."""
    matcher: Any = getattr(net, "group_matcher", None)
    head = _head(net)
    if matcher is None or not head:
        raise UserError(f"{type(net).__name__} does not say which of its parameters are its head: use train=all")
    layers: Any = group_parameters(net, matcher(coarse=False), reverse=True)
    last = max(layers[name] for name in head)  # norms and pools after the blocks count as the last block's
    return {name: last if name in head else min(layer, last - 1) for name, layer in layers.items()}


def _head(net: Any) -> set[str]:
    classifiers = net.get_classifier() if hasattr(net, "get_classifier") else ()
    ours = {id(p) for each in _as_tuple(classifiers) for p in each.parameters()}
    return {name for name, parameter in net.named_parameters() if id(parameter) in ours}


def _as_tuple(modules: Any) -> tuple[nn.Module, ...]:
    return tuple(modules) if isinstance(modules, (tuple, list)) else (modules,)


class FreezeSchedule:
    """What of a network trains now, and what will.

    Args:
        net: The network.
        tuning: What is to train.

    Raises:
        UserError: If the network has fewer blocks than are to train, or does not say which its head is.
    """

    def __init__(self, net: nn.Module, tuning: Tuning) -> None:
        self.net, self.probing = net, False
        may_train = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
        self.everything = tuning.train == "all"
        self.trained = tuning.names(net) & may_train
        self.probed = tuning.names(net, probing=True) & may_train if tuning.probe else None

    def begin(self, strategy: Any = None) -> None:
        """Freeze what does not train at first.

        Raises:
            UserError: If the strategy shards parameters and a probe would have to change which of them train.
        """
        self.probing = self.probed is not None
        if self.probing and strategy is not None and not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise UserError(f"probe needs one device or ddp, not {type(strategy).__name__}: train in two runs instead")
        self._train(self.probed if self.probed is not None else self.trained)

    def rest(self) -> None:
        """Put what does not train into evaluation: no dropout, and no statistics that move."""
        if self.probing or not self.everything:
            set_frozen_eval(self.net)

    @contextlib.contextmanager
    def all_that_will_train(self) -> Iterator[None]:
        """In the block, parameters are as they are after the probe, for an optimiser of all of them."""
        self._train(self.trained)
        try:
            yield
        finally:
            self._train(self.probed if self.probing and self.probed is not None else self.trained)

    def end_probe(self, strategy: Any, module: nn.Module) -> None:
        """Let the rest train too, on every rank: ddp asks for what trains once, when it wraps a module."""
        self.probing = False
        self._train(self.trained)
        self.net.train()
        self.rest()
        if isinstance(strategy, DDPStrategy):
            strategy.model = module
            strategy.configure_ddp()

    def _train(self, names: set[str]) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in names)


def set_frozen_eval(net: nn.Module) -> None:
    """Put what does not train into evaluation: no dropout, and no statistics that move.

    A module without parameters, such as a dropout between two parts, follows the part after it.
    """
    if not any(parameter.requires_grad for parameter in net.parameters()):
        net.eval()
        return
    still = False
    for child in reversed(list(net.children())):
        if parameters := list(child.parameters()):
            set_frozen_eval(child)
            still = not all(parameter.requires_grad for parameter in parameters)
        elif still:
            child.eval()
