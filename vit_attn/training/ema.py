"""Exponential moving average of the weights."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from vit_attn.errors import UserError


class EMA(WeightAveraging):
    """Exponential moving average of the weights after each step, which is validated, logged and saved instead of them.

    It has the hooks and checkpoints of Lightning's ``EMAWeightAveraging``. That one counts the steps on the device and
    reads the counter twice a step, for which the host waits. This one counts on the host, and averages parameters and
    buffers in one operation; those that are not floating-point, such as counters, are copied.

    Args:
        decay: Fraction of the old average that each step keeps.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_decay(decay)
        super().__init__()
        self.decay = decay
        self._num_averaged = 0
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []
        self._is_swapped = False

    @property
    def network(self) -> nn.Module | None:
        """The averaged task, of the same class as the one that trains; None outside of training."""
        return None if self._average_model is None else self._average_model.module

    def change(self, change: Callable[[Any], None]) -> None:
        """Apply to the averaged task a change that replaces parameters, such as that of the patch size.

        Args:
            change: Function that is called with the averaged task, if there is one; not during validation, in which
                the average is in the place of the weights.
        """
        if self.network is not None:
            change(self.network)
            self._pairs = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the network, and go before other callbacks, which need the averaged weights at validation.

        Raises:
            UserError: If the strategy shards the weights.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise UserError("averaged weights need the whole network on each device: leave model.ema or fsdp2 out")
        owner: Any = trainer
        owner.callbacks = [self, *(each for each in owner.callbacks if each is not self)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*overrides the configure_model")  # which only shards
            super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._num_averaged, self._pairs, self._is_swapped = 0, [], False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average to the network's device; the number of steps in it stays on the host.

        It keeps its float32 where the network is in true half precision, in which small changes would be lost.
        """
        if self.network is not None:
            self.network.to(pl_module.device)
        self._pairs = []
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average the weights after a step."""
        if trainer.global_step > self._latest_update_step:
            self._average(pl_module)
            self._latest_update_step = trainer.global_step

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget the average after training, whose network has it then: a later test loads its own weights."""
        if stage == "fit":
            self._average_model, self._pairs = None, []

    @torch.no_grad()
    def _average(self, pl_module: nn.Module) -> None:
        self._pairs = self._pairs or _floating_and_other(self.network, pl_module)
        for average, current in self._pairs:
            if self._num_averaged and average[0].is_floating_point():
                same = [
                    now if now.dtype == old.dtype else now.to(old.dtype)
                    for old, now in zip(average, current, strict=True)
                ]
                torch._foreach_lerp_(average, same, 1 - self.decay)
            else:
                torch._foreach_copy_(average, current)
        self._num_averaged += 1

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the weights back if validation ended early, before another callback saves them."""
        if self._is_swapped:
            self._swap_models(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights, and the weights beside it."""
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(self._num_averaged)
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the weights; without an average in the checkpoint, both are its weights."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            self._num_averaged = int(self._average_model.n_averaged)

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_swapped = not self._is_swapped


def _floating_and_other(average: Any, current: nn.Module) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Pair the tensors of two modules, in one list for floating-point ones and one for others, if there are any."""
    modules = [list(itertools.chain(each.parameters(), each.buffers())) for each in (average, current)]
    pairs = [(one.detach(), other.detach()) for one, other in zip(*modules, strict=True)]
    kinds = [[pair for pair in pairs if pair[0].is_floating_point() is floating] for floating in (True, False)]
    return [([one for one, _ in kind], [other for _, other in kind]) for kind in kinds if kind]


def averaged_networks(trainer: Any) -> list[nn.Module]:
    """Averages of the network that the trainer's callbacks keep."""
    callbacks = getattr(trainer, "callbacks", None) or []
    averages: list[Any] = [each.network for each in callbacks if isinstance(each, EMA)]
    return [each.net for each in averages if each is not None]


def check_decay(decay: float) -> None:
    """Check the range of a decay.

    Raises:
        UserError: If it is not in [0, 1].
    """
    if not 0 <= decay <= 1:
        raise UserError(f"the decay of averaged weights must be in [0, 1], got {decay}")
