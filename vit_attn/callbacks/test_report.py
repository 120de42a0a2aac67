"""Report of a test: text in the terminal, ``test.json``, and the confusion matrix as a picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from vit_attn.callbacks.attention_callback import network_name
from vit_attn.callbacks.attention_logger.figures import add_picture
from vit_attn.callbacks.worst_errors import WorstErrors
from vit_attn.console import CONSOLE
from vit_attn.data_protocol import ProbeData
from vit_attn.errors import UserError
from vit_attn.plotting.confusion import draw_confusion
from vit_attn.plotting.scale import Picture
from vit_attn.reports.classification_metrics import ClassificationMetrics
from vit_attn.reports.report_files import REPORT, ReportFiles, find_data_difference, name_report_files
from vit_attn.reports.report_text import describe_images, report_text
from vit_attn.training.data_members import class_names_of, names_of_classes

TAGS = {
    "top1": "accuracy",
    **{name: name for name in ("top2", "top5", "loss", "class_accuracy", "calibration_error")},
}
"""Entries of the report that are logged, and their scalar tags under ``test/``."""


class TestReport(L.Callback):
    """Measures a test and writes ``test.json``, ``confusion.png`` and ``errors.png``, replacing those of its kind.

    ``errors.png`` shows the most confident wrong predictions: image, label, prediction and its probability.

    A limited test, one on other images than the run's, and one of another checkpoint have other file names
    (:func:`~vit_attn.reports.report_files.name_report_files`); the first two are not shown in TensorBoard.

    ``test.json`` has ``checkpoint``, ``dataset``, ``split`` (``val`` if there are no test images), ``step`` (of the
    training), ``images``, ``limited`` (null, or the setting that limits the test), ``loss`` (cross-entropy without
    smoothing), ``top1``, ``top5`` (for 6 classes or more; else ``top2``, for 3 or more), ``class_accuracy`` (mean over
    the classes that have images), ``calibration_error`` (expected, of the predicted class's probability) with
    ``calibration_bins``, ``classes`` (a list of ``name``, ``images``, ``accuracy``, null without images, and
    ``predicted``, how often the class was predicted) and ``confusion`` (rows are true classes, columns predicted ones;
    null above 1,000 classes). TensorBoard shows the same numbers with the training. Several devices are counted
    together, each image once.

    Args:
        folder: Folder of the files.
        log_to_tensorboard: Whether the folder is that of a run, whose TensorBoard shows the test.
    """

    __test__ = False  # pytest would take the class for a test

    def __init__(self, folder: Path, log_to_tensorboard: bool) -> None:
        self.folder, self.log_to_tensorboard, self.step = folder, log_to_tensorboard, 0
        self.data_difference: str | None = None
        self.metrics: ClassificationMetrics | None = None
        self.worst: WorstErrors | None = None
        self.class_names: tuple[str, ...] = ()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the training step from the checkpoint, and compare its images with those of the test."""
        self.step = int(checkpoint.get("global_step", 0))
        self.data_difference = find_data_difference(checkpoint, _data(trainer))

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create the metrics."""
        data = _data(trainer)
        count = getattr(data, "num_classes", None) or pl_module.hparams["num_classes"]
        self.metrics = ClassificationMetrics(count, pl_module.device)
        names = getattr(data, "class_names", None) or class_names_of(trainer.test_dataloaders) or ()
        self.class_names = tuple(names_of_classes(names, count))
        self.worst = WorstErrors(data) if isinstance(data, ProbeData) else None

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, whose logits ``test_step`` returned.

        Raises:
            UserError: If the logits are not finite: their metrics would look like those of a network that guesses.
        """
        logits, labels = outputs.float(), batch[1]
        if not bool(logits.isfinite().all()):
            raise UserError(
                f"the network gives NaN or infinity for images of test batch {batch_idx + 1}: if it overflows in 16 "
                "bits, measure it with --trainer.precision=32-true"
            )
        if self.metrics is not None:
            self.metrics.update(logits, labels)
        if self.worst is not None:
            self.worst.update(batch[0], logits, labels)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the metrics over all devices; print and write them on the first."""
        data = _data(trainer)
        measured = self.metrics.compute(self.class_names) if self.metrics is not None else {}
        if self.worst is not None:
            self.worst.gather(pl_module)
        if not trainer.is_global_zero:
            return
        limit = data.limit("test") if hasattr(data, "limit") else None
        name = getattr(data, "dataset", None)  # in a module of one's own it may be the data set itself
        dataset = name if isinstance(name, str) else type(data).__name__
        checkpoint, title = str(trainer.ckpt_path or ""), getattr(data, "title", dataset)
        files = name_report_files(self.folder, checkpoint, limit, title, self.data_difference)
        report = {
            "checkpoint": checkpoint,
            "dataset": dataset,
            "split": data.cache.tested_on if hasattr(data, "cache") else "test",
            "step": self.step,
            "limited": limit and limit.setting,
            **measured,
        }
        heading = f"{'/'.join(self.folder.parts[-2:])}, step {self.step:,}\n{describe_images(report)}"
        if self.worst is not None:
            heading = f"{heading}\n{network_name(pl_module)}"
        pictures = {"confusion": _draw(report, self.class_names, heading)}
        if self.worst is not None:
            pictures["errors"] = self.worst.draw(self.class_names, heading, trainer.world_size == 1)
        drawn = {name: picture for name, picture in pictures.items() if picture is not None}
        written = _write(report, drawn, files)
        if self.log_to_tensorboard and files.of_run:
            self._log(report, drawn)
        reasons = "".join(f"\nnot {REPORT}: {reason}" for reason in files.reasons)
        paths = ", ".join(map(str, written))
        CONSOLE.say(f"{report_text(report)}{reasons}\nwritten: {paths}")

    def _log(self, report: dict[str, Any], pictures: Mapping[str, Picture]) -> None:
        with SummaryWriter(str(self.folder), filename_suffix=".test") as writer:
            for name, tag in TAGS.items():
                if name in report:
                    writer.add_scalar(f"test/{tag}", report[name], self.step)
            for name, picture in pictures.items():
                add_picture(writer, f"test/{name}", picture, self.step)


def _draw(report: dict[str, Any], class_names: tuple[str, ...], heading: str) -> Picture | None:
    """Draw the confusion matrix, if the report has one."""
    if report["confusion"] is None:
        return None
    title = f"{heading}\ntop-1 accuracy {report['top1']:.2%}"
    return draw_confusion(np.array(report["confusion"]), class_names, title)


def _write(report: dict[str, Any], pictures: Mapping[str, Picture], files: ReportFiles) -> list[Path]:
    """Write the files and return their paths."""
    files.report.parent.mkdir(parents=True, exist_ok=True)
    files.report.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", "utf-8", "backslashreplace")
    files.picture.with_name(files.picture.name.replace("confusion", "errors", 1)).unlink(missing_ok=True)
    paths = {name: files.picture.with_name(files.picture.name.replace("confusion", name, 1)) for name in pictures}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(paths[name], optimize=True)
    return [files.report, *paths.values()]


def _data(trainer: L.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
