"""Predictions for a whole split as a table."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from vit_attn.errors import UserError, printable
from vit_attn.reports.prediction_table import NOT_FINITE, PredictionTable, check_top_k, guesses, unique_names


class PredictionWriter(BasePredictionWriter):
    """Writes each test image's number, from 1, true class and likeliest classes, in order, as they come.

    Args:
        path: The file, which ends in ``.csv``, ``.json`` or ``.parquet``; it takes its name when it is whole.
        top_k: Number of classes; by default 5, or all of fewer.
    """

    def __init__(self, path: str, top_k: int | None = None) -> None:
        super().__init__(write_interval="batch")
        self.path, self.top_k = Path(path), top_k
        self.table: PredictionTable | None = None
        self.failed = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse several devices, each of which would have a part of the images, and more classes than there are."""
        if trainer.world_size > 1:
            raise UserError("predictions are written from one device: --trainer.devices=1")
        self.top_k = check_top_k(self.top_k, _data(trainer).num_classes)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the file."""
        self.table = PredictionTable(self.path, self.top_k or 1, labelled=True)

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Add a batch's rows."""
        if self.table is None:
            return
        names = unique_names(_data(trainer).class_names)
        rows = guesses(prediction, self.top_k or 1, names.__getitem__)
        for number, (row, label) in enumerate(zip(rows, batch[1].tolist(), strict=True), start=1 + self.table.count):
            row |= {"image": number, "label": names[label]}
            self.failed += "error" in row
        self.table.write(rows)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finish the file and say where it is.

        Raises:
            UserError: If there is no prediction in it.
        """
        table, self.table = self.table, None
        if table is None:
            return
        table.close()
        if self.failed == table.count:
            raise UserError(f"{NOT_FINITE} for all {table.count:,} images; {self.path} says so of each")
        apart = f"; for {self.failed:,} of them {NOT_FINITE}" if self.failed else ""
        data = _data(trainer)
        limit = data.limit("predict") if hasattr(data, "limit") else None
        part = f"the first {table.count:,} of {limit.of:,}" if limit else f"{table.count:,}"
        sys.stdout.write(printable(f"predictions of {part} images: {self.path}{apart}") + "\n")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was done."""
        if self.table is not None:
            self.table.close(whole=False)


def _data(trainer: L.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
