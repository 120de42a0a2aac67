"""Classification metrics of a test: accuracy, calibration, results per class and the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassStatScores,
)

CALIBRATION_BINS = 15
MAX_CONFUSION_CLASSES = 1000
"""Classes above which there is no confusion matrix, whose size grows with their square."""
MAX_PROBABILITY = 1 - 2**-24
"""Largest float below 1: torchmetrics would count a probability of 1 in an extra bin beyond the last."""


class ClassificationMetrics:
    """Metrics accumulated over batches; several devices are counted together, each image once.

    Args:
        num_classes: Number of classes.
        device: Device of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        metrics: dict[str, Any] = {
            "scores": MulticlassStatScores(num_classes, average="none"),
            "calibration_error": MulticlassCalibrationError(num_classes, n_bins=CALIBRATION_BINS),
        }
        if num_classes > 2:
            top_k = 5 if num_classes > 5 else 2
            metrics[f"top{top_k}"] = MulticlassAccuracy(num_classes, top_k=top_k, average="micro")
        if num_classes <= MAX_CONFUSION_CLASSES:
            metrics["confusion"] = MulticlassConfusionMatrix(num_classes)
        self.metrics = MetricCollection(metrics, compute_groups=False).to(device)
        self.loss = MeanMetric(nan_strategy="disable").to(device)

    def update(self, logits: Float[Tensor, "B classes"], labels: Int64[Tensor, " B"]) -> None:
        """Add a batch."""
        self.metrics.update(logits.softmax(dim=-1).clamp(max=MAX_PROBABILITY), labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def compute(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Compute the entries of ``test.json`` that are measured; all ranks must call it.

        Args:
            class_names: Names of the classes by index.
        """
        computed, loss = self.metrics.compute(), float(self.loss.compute())
        right, wrong, _, _, images = computed["scores"].long().cpu().unbind(dim=-1)
        accuracies = [
            hits / count if count else None for hits, count in zip(right.tolist(), images.tolist(), strict=True)
        ]
        known = [each for each in accuracies if each is not None]
        rows = zip(class_names, images.tolist(), accuracies, (right + wrong).tolist(), strict=True)
        return {
            "images": int(images.sum()),
            "loss": loss,
            "top1": int(right.sum()) / int(images.sum()),
            **{name: float(value) for name, value in computed.items() if name in ("top2", "top5")},
            "class_accuracy": sum(known) / len(known),
            "calibration_error": float(computed["calibration_error"]),
            "calibration_bins": CALIBRATION_BINS,
            "classes": [dict(zip(("name", "images", "accuracy", "predicted"), row, strict=True)) for row in rows],
            "confusion": computed["confusion"].tolist() if "confusion" in computed else None,
        }
