"""Exponential moving average of the weights."""

import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vit_attn.errors import UserError


class EMA(WeightAveraging):
    """Exponential moving average of the weights after each step, which is validated, logged and saved instead of them.

    Lightning's ``EMAWeightAveraging`` makes its copy before the network has moved to the GPU, so that each step would
    transfer parameter by parameter; this one moves the copy along and averages all parameters in one call.

    Args:
        decay: Fraction of the old average that each step keeps.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_decay(decay)
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average to the network's device."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)
        super().on_train_start(trainer, pl_module)


def check_decay(decay: float) -> None:
    """Check the range of a decay.

    Raises:
        UserError: If it is not in [0, 1].
    """
    if not 0 <= decay <= 1:
        raise UserError(f"the decay of averaged weights must be in [0, 1], got {decay}")
