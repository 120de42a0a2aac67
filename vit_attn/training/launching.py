"""Preparation of a trainer, so that its run can be stopped and its files are complete."""

import os
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from vit_attn.training.checkpoint_io import WholeCheckpointIO
from vit_attn.training.sharding import FSDP2
from vit_attn.training.stopping import PARENT_VARIABLE


def prepare_trainer(trainer: Trainer) -> Trainer:
    """Leave signals to :mod:`vit_attn.training.stopping`, and write atomic checkpoints where one process writes them.

    Lightning's handler for SIGTERM communicates with other ranks wherever the program is, and its loop broadcasts the
    signal of the first rank in each step, which waits for the device.
    """
    trainer._signal_connector.register_signal_handlers = _do_nothing
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing
    strategy = trainer.strategy
    if isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, FSDP2)) and strategy._checkpoint_io is None:
        strategy.checkpoint_io = WholeCheckpointIO()
    if strategy.launcher is not None and "LOCAL_RANK" not in os.environ:
        os.environ[PARENT_VARIABLE] = str(os.getpid())  # for the ranks that this process launches
    return trainer


def _do_nothing(*_: Any) -> None:
    """Replace a method of Lightning."""
