"""Lightning module whose updates are undone if they are not finite."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from vit_attn.training.metrics import is_logging_step, is_measured_step, show_on_progress_bar
from vit_attn.training.update_gate import UpdateGate, gradient_norm


class GatedModule(L.LightningModule):
    """Module that clips gradients by the norm that its update gate needs, and logs that norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: UpdateGate | None = None
        self._gradient_norm: Tensor | None = None

    def start_gate(self, nonfinite: Literal["stop", "skip"], buffers: Iterable[Tensor]) -> None:
        """Undo updates that are not finite from now on.

        Args:
            nonfinite: Whether all updates after such a one are undone, too, or it is skipped.
            buffers: Buffers that a forward pass changes.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # skips bad steps of its own
        self.gate = UpdateGate(self.device, nonfinite == "stop" and not scaled, buffers)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, reusing the norm that the update gate needs."""
        parameters = list(self.trainer.precision_plugin.main_params(optimizer))
        norm = self._gradient_norm = gradient_norm(parameters)
        if self.gate is not None:
            self.gate.before_step(optimizer, norm)
        plain = isinstance(self.trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        plain &= getattr(self.trainer.precision_plugin, "scaler", None) is None
        if plain and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step, and undo it on the device if it was not finite."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.gate is not None:
            self.gate.after_step(getattr(optimizer, "optimizer", optimizer), self.trainer.global_step + 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the norm of the gradients before they were clipped, and show the loss, both where the host may wait."""
        if self._gradient_norm is not None and is_measured_step(self.trainer):
            self.log("train/grad_norm", self._gradient_norm)
        bar, loss = self.trainer.progress_bar_callback, self.trainer.callback_metrics.get("train/loss")
        shown = bar is not None and loss is not None and (is_logging_step(self.trainer) or self.trainer.is_last_batch)
        if shown:
            show_on_progress_bar(self.trainer, "train/loss", float(loss))
