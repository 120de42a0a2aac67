"""Predictions as a table that anything can read."""

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from vit_attn.errors import UserError


class PredictionWriter(BasePredictionWriter):
    """Writes ``index, label, predicted, probability`` of every test image to a CSV file, in order.

    Args:
        path: The file. It is written whole or not at all.
    """

    def __init__(self, path: str) -> None:
        super().__init__(write_interval="epoch")
        self.path = path

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse several devices, each of which would have a part of the images."""
        if trainer.world_size > 1:
            raise UserError("predictions are written from one device: --trainer.devices=1")

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the file and say where it is."""
        data: Any = getattr(trainer, "datamodule", None)
        labels = data.splits["test"].labels.tolist()
        rows: list[tuple[Any, ...]] = [("index", "label", "predicted", "probability")]
        for index, probabilities in enumerate(each for batch in predictions for each in batch):
            probability, guess = probabilities.max(dim=-1)
            rows.append((index, data.class_names[labels[index]], data.class_names[int(guess)], f"{probability:.4f}"))
        path = Path(self.path)
        unfinished = path.with_name(path.name + ".unfinished")
        with unfinished.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        os.replace(unfinished, path)
        sys.stdout.write(f"predictions: {path}\n")
