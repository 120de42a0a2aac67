"""Predictions as a table that anything can read."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor


class PredictionWriter(BasePredictionWriter):
    """Writes ``index, label, predicted, probability`` of every predicted image to a CSV file, in order.

    Args:
        path: The file; by default ``predictions.csv`` in the run's folder.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.path = path

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the file, whole or not at all."""
        data: Any = getattr(trainer, "datamodule", None)
        labels = data.splits["test"].labels.tolist()
        rows = []
        for index, probabilities in enumerate(_each(predictions)):
            probability, guess = probabilities.max(dim=-1)
            rows.append((index, data.class_names[labels[index]], data.class_names[int(guess)], f"{probability:.4f}"))
        path = Path(self.path or Path(trainer.log_dir or ".") / "predictions.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("index", "label", "predicted", "probability"), *rows])
        self.path = str(path)


def _each(predictions: Sequence[Tensor]) -> list[Tensor]:
    return [probabilities for batch in predictions for probabilities in batch]
