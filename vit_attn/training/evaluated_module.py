"""Lightning module that measures and predicts by a classifier."""

from typing import Any

import lightning as L
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from vit_attn.training.batch_checks import check_first_batch, check_images, explaining

Batch = tuple[Tensor, Tensor] | list[Tensor]
"""Images and labels: a tuple of ``ImageData``, or a list of torch's own ``DataLoader``."""


class EvaluatedModule(L.LightningModule):
    """Module with the steps of validation, test and prediction by its network ``net``."""

    net: nn.Module

    def create_metrics(self, num_classes: int) -> None:
        """Create loss and accuracy of validation and test: means over images, on all devices.

        Lightning's own mean of a number weights batches by a rounded size.

        Args:
            num_classes: Number of classes.
        """
        self.checked_for: dict[str, int] = {}  # identity of the trainer, by stage
        self.val_loss, self.test_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.val_accuracy, self.test_accuracy = (  # arguments are not validated: the host would read the labels
            MulticlassAccuracy(num_classes, average="micro", validate_args=False) for _ in range(2)
        )

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Check the first batch of a run."""
        self.check_first("validation", batch)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Check the first batch."""
        self.check_first("test", batch)

    def check_first(self, stage: str, batch: Any) -> None:
        """Check the first batch that a trainer gives to a stage.

        Args:
            stage: ``train``, ``validation`` or ``test``.
            batch: The batch.

        Raises:
            UserError: If it is not what the network takes.
        """
        if self.checked_for.get(stage) != id(self.trainer):
            self.checked_for[stage] = id(self.trainer)
            check_first_batch(batch, self.hparams["num_classes"])

    def forward(self, images: Float[Tensor, "B C height width"]) -> Float[Tensor, "B classes"]:
        """Logits of normalised images."""
        return self.net(images.to(next(self.net.parameters()).dtype))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log cross-entropy without smoothing and class weights, and top-1 accuracy."""
        self._evaluate("val", self.val_loss, self.val_accuracy, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "B classes"]:
        """Log the same as in validation, and return the logits for callbacks that measure more."""
        return self._evaluate("test", self.test_loss, self.test_accuracy, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "B classes"]:
        """Probabilities of the classes."""
        with explaining(batch, self.hparams):
            images, _ = batch
            check_images(images)
            return self(images).float().softmax(dim=-1)

    def _evaluate(self, stage: str, loss: MeanMetric, accuracy: MulticlassAccuracy, batch: Batch) -> Tensor:
        with explaining(batch, self.hparams):
            images, labels = batch
            check_images(images)
            logits = self(images)
            accuracy.update(logits, labels)
            loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True)
        return logits
