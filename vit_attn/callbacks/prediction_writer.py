"""Table of the predictions for a split of a data module."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, printable
from vit_attn.reports.prediction_table import NOT_FINITE, PredictionTable, check_top_k, prediction_rows, unique_names


class PredictionWriter(BasePredictionWriter):
    """Writes number (from 1), true class and likeliest classes of each image, batch by batch in order.

    Args:
        path: The file, which ends in ``.csv``, ``.json`` or ``.parquet``; it gets its name when it is complete.
        top_k: Number of classes per image; by default 5, or all of fewer.
    """

    def __init__(self, path: str, top_k: int | None = None) -> None:
        super().__init__(write_interval="batch")
        self.path, self.top_k = Path(path), top_k
        self.table: PredictionTable | None = None
        self.num_failed = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the number of devices, each of which would see only a part of the images, and ``top_k``.

        Raises:
            UserError: If there are several devices, or fewer classes than ``top_k``.
        """
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
        """Write the rows of a batch."""
        if self.table is None:
            return
        names = unique_names(_data(trainer).class_names)
        rows = prediction_rows(prediction, self.top_k or 1, names.__getitem__)
        for number, (row, label) in enumerate(zip(rows, batch[1].tolist(), strict=True), start=1 + self.table.count):
            row |= {"image": number, "label": names[label]}
            self.num_failed += "error" in row
        self.table.write(rows)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the file and print its path.

        Raises:
            UserError: If no image has a prediction.
        """
        table, self.table = self.table, None
        if table is None:
            return
        table.close()
        if self.num_failed == table.count:
            raise UserError(f"{NOT_FINITE} for all {table.count:,} images; see the column error of {self.path}")
        failed = f"; for {self.num_failed:,} of them {NOT_FINITE}" if self.num_failed else ""
        data = _data(trainer)
        limit = data.limit("predict") if hasattr(data, "limit") else None
        part = f"the first {table.count:,} of {limit.of:,}" if limit else f"{table.count:,}"
        CONSOLE.say(printable(f"predictions of {part} images: {self.path}{failed}"))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep the rows so far in an unfinished file."""
        if self.table is not None:
            self.table.close(complete=False)


def _data(trainer: L.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
