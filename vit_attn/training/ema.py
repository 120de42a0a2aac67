"""Averaged weights: what is validated and saved is smoother than what the last step left."""

import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vit_attn.errors import UserError


class EMA(WeightAveraging):
    """Exponential moving average of the weights after every step; validated, logged and saved instead of them.

    Lightning's own ``EMAWeightAveraging`` makes its copy before the network has moved to the GPU, so that every step
    would cross the bus parameter by parameter; this one moves it along and averages all parameters in one call.

    Args:
        decay: Share of the old average that each step keeps.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_decay(decay)
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the network, and stand first: other callbacks look at a validation's weights when they are in place.

        Raises:
            UserError: If its weights are in parts on several devices.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise UserError("averaged weights need the whole network on each device: leave model.ema or fsdp2 out")
        owner: Any = trainer
        owner.callbacks = [self, *(each for each in owner.callbacks if each is not self)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*overrides the configure_model")  # which shards, if anything
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the average to where the network is by now."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)
        super().on_train_start(trainer, pl_module)


def check_decay(decay: float) -> None:
    """Refuse a share that is none.

    Raises:
        UserError: If so.
    """
    if not 0 <= decay <= 1:
        raise UserError(f"the decay of averaged weights must be in [0, 1], got {decay}")
