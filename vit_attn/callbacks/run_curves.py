"""Figure of a run's curves, for which TensorBoard is not needed."""

import time
from pathlib import Path

import lightning as L
from PIL import Image

from vit_attn.callbacks.attention_callback import BackgroundWriter
from vit_attn.callbacks.run_logger import RunLogger
from vit_attn.callbacks.trainer_state import is_trial
from vit_attn.files import whole_file
from vit_attn.plotting.run_curves import draw_run
from vit_attn.reports.metrics_table import FILE_NAME as METRICS
from vit_attn.reports.metrics_table import read_metrics

FILE_NAME = "curves.png"
MAX_COST = 0.01
"""Fraction of the time that drawing may take before the end."""


class RunCurves(L.Callback):
    """Draws the curves of ``metrics.csv`` as ``curves.png``, at the end and, as far as 1 % of the time allows, before.

    They are drawn at the ends of epochs, in a background thread.
    """

    def __init__(self) -> None:
        self.background = BackgroundWriter("curves of the run")
        self.started, self.spent = time.monotonic(), 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the time from here."""
        self.started, self.spent = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it does not take too much of the time."""
        if self.spent <= MAX_COST * (time.monotonic() - self.started):
            self._submit(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the whole run."""
        self._submit(trainer)
        self.background.finish()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw the run until here."""
        self._submit(trainer)
        self.background.finish()

    def _submit(self, trainer: L.Trainer) -> None:
        folder = run_folder_of(trainer)
        if folder is not None and (folder / METRICS).is_file():
            self.background.submit(trainer.global_step, self._draw, folder)

    def _draw(self, folder: Path) -> None:
        begin = time.monotonic()
        picture = draw_run(read_metrics(folder / METRICS), f"{folder.parent.name}/{folder.name}")
        with whole_file(folder / FILE_NAME, "figure") as file:
            Image.fromarray(picture).save(file, "PNG", compress_level=1)
        self.spent += time.monotonic() - begin


def run_folder_of(trainer: L.Trainer) -> Path | None:
    """Return the folder of a run on the rank that writes it, or None."""
    if not trainer.is_global_zero or is_trial(trainer):
        return None
    return next((logger.folder for logger in trainer.loggers if isinstance(logger, RunLogger)), None)
