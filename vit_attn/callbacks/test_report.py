"""What a test found: a table for the terminal, a JSON, and a confusion matrix as a picture."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassStatScores,
)

from vit_attn.callbacks.attention_logger.figures import add_picture
from vit_attn.errors import UserError, printable, shortened
from vit_attn.plotting.confusion import draw_confusion
from vit_attn.reports.report_files import REPORT, files_of_test, other_images

BINS = 15
MOST_CLASSES = 1000
"""Classes above which there is no confusion matrix: it grows with their square."""
SUREST = 1 - 2**-24
"""The largest float below 1: torchmetrics counts what is 1 in a bin of its own beyond the last."""
WORST = 10
"""Classes of the table in the terminal, where there are more."""
MOST_NAME = 60
"""Characters of a class's name in that table."""


class TestReport(L.Callback):
    """Measures a test and writes it to ``test.json`` and ``confusion.png``, over those of an earlier test of its kind.

    A limited test, one on other images than the run's, and one of another checkpoint have files of their own names, as
    :func:`~vit_attn.reports.report_files.files_of_test` has it; the first two are not shown in TensorBoard.

    ``test.json`` has ``checkpoint``, ``dataset``, ``split`` (``val`` where there are no test images), ``step`` (of the
    training), ``images``, ``limited`` (null, or the setting by which these are a part of the split), ``loss``
    (cross-entropy without smoothing), ``top1``, ``top5`` (of 6 classes or more; else ``top2``, of 3 or more),
    ``class_accuracy`` (mean over the classes that have images), ``calibration_error`` (expected, of the named class's
    probability) with its ``calibration_bins``, ``classes`` (a list of ``name``, ``images``, ``accuracy``, null without
    images, and ``named``, how often it was named) and ``confusion`` (rows are true classes, columns what was named;
    null above 1,000 classes). The same numbers go to TensorBoard beside those of the training. Several devices are
    counted together, each image once.

    Args:
        folder: Where the files go.
        events: Whether the folder is a run's, in whose TensorBoard the test is shown.
    """

    __test__ = False  # for pytest, which takes its name for a test's

    def __init__(self, folder: Path, events: bool) -> None:
        self.folder, self.events, self.step = folder, events, 0
        self.other: str | None = None
        self.metrics, self.loss = MetricCollection({}), MeanMetric(nan_strategy="disable")

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the step of the training from the checkpoint, and how its images differ from those of the test."""
        self.step = int(checkpoint.get("global_step", 0))
        self.other = other_images(checkpoint, _data(trainer))

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        classes = _data(trainer).num_classes
        metrics: dict[str, Any] = {
            "scores": MulticlassStatScores(classes, average="none"),
            "calibration_error": MulticlassCalibrationError(classes, n_bins=BINS),
        }
        if classes > 2:
            likeliest = 5 if classes > 5 else 2
            metrics[f"top{likeliest}"] = MulticlassAccuracy(classes, top_k=likeliest, average="micro")
        if classes <= MOST_CLASSES:
            metrics["confusion"] = MulticlassConfusionMatrix(classes)
        self.metrics = MetricCollection(metrics, compute_groups=False).to(pl_module.device)
        self.loss = MeanMetric(nan_strategy="disable").to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch, of which ``test_step`` returned the logits.

        Raises:
            UserError: If they are not finite: what is measured of them would look like a network that guesses.
        """
        logits, labels = outputs.float(), batch[1]
        if not bool(logits.isfinite().all()):
            raise UserError(
                f"the network gives NaN or infinity for images of test batch {batch_idx + 1}: if it overflows in 16 "
                "bits, measure it with --trainer.precision=32-true"
            )
        self.metrics.update(logits.softmax(dim=-1).clamp(max=SUREST), labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather from all devices; print and write on the first."""
        computed, loss = self.metrics.compute(), float(self.loss.compute())
        if not trainer.is_global_zero:
            return
        data = _data(trainer)
        limit = data.limit("test") if hasattr(data, "limit") else None
        checkpoint = str(trainer.ckpt_path or "")
        files = files_of_test(self.folder, checkpoint, limit, getattr(data, "title", data.dataset), self.other)
        report = {
            "checkpoint": checkpoint,
            "dataset": data.dataset,
            "split": data.store.tested_on,
            "step": self.step,
            "limited": limit and limit.setting,
            **_summary(computed, loss, data.class_names),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        files.report.write_text(text, "utf-8", "backslashreplace")
        written, picture = [files.report], None
        if report["confusion"] is not None:
            title = f"{_what(report)}, top-1 accuracy {report['top1']:.2%}"
            picture = draw_confusion(np.array(report["confusion"]), data.class_names, title)
            written.append(files.picture)
            Image.fromarray(picture).save(files.picture, optimize=True)
        if self.events and files.of_run:
            self._log(report, picture)
        apart = "".join(f"\nnot {REPORT}: {reason}" for reason in files.apart)
        sys.stdout.write(table(report) + printable(f"{apart}\nwritten: {', '.join(map(str, written))}\n", keep="\n"))

    def _log(self, report: dict[str, Any], picture: Any) -> None:
        with SummaryWriter(str(self.folder), filename_suffix=".test") as writer:
            for name, tag in (("top1", "accuracy"), *((name, name) for name in ("top2", "top5", "loss"))):
                if name in report:
                    writer.add_scalar(f"test/{tag}", report[name], self.step)
            for name in ("class_accuracy", "calibration_error"):
                writer.add_scalar(f"test/{name}", report[name], self.step)
            if picture is not None:
                add_picture(writer, "test/confusion", picture, self.step)


def _summary(computed: dict[str, Any], loss: float, names: tuple[str, ...]) -> dict[str, Any]:
    """The numbers of ``test.json``."""
    right, wrong, _, _, images = computed["scores"].long().cpu().unbind(dim=-1)
    accuracies = [hits / count if count else None for hits, count in zip(right.tolist(), images.tolist(), strict=True)]
    known = [each for each in accuracies if each is not None]
    each = zip(names, images.tolist(), accuracies, (right + wrong).tolist(), strict=True)
    return {
        "images": int(images.sum()),
        "loss": loss,
        "top1": int(right.sum()) / int(images.sum()),
        **{name: float(value) for name, value in computed.items() if name in ("top2", "top5")},
        "class_accuracy": sum(known) / len(known),
        "calibration_error": float(computed["calibration_error"]),
        "calibration_bins": BINS,
        "classes": [dict(zip(("name", "images", "accuracy", "named"), row, strict=True)) for row in each],
        "confusion": computed["confusion"].tolist() if "confusion" in computed else None,
    }


def table(report: dict[str, Any]) -> str:
    """A report for the terminal: all numbers, and the classes, the worst of many.

    Args:
        report: What ``test.json`` holds.
    """
    top = {name: report[name] for name in ("top1", "top2", "top5") if name in report}
    numbers = {f"top-{name[3:]} accuracy": f"{value:.4f}" for name, value in top.items()} | {
        "mean class accuracy": f"{report['class_accuracy']:.4f}",
        "calibration error": f"{report['calibration_error']:.4f}  (expected, {report['calibration_bins']} bins)",
        "loss": f"{report['loss']:.4f}",
    }
    lines = [f"\ntest: {_what(report)}, step {report['step']:,} of the training"]
    lines += [f"  {name:<21}{value}" for name, value in numbers.items()]
    classes = [(number, each) for number, each in enumerate(report["classes"]) if each["images"]]
    shown, title = classes, "class"
    if len(classes) > 2 * WORST:
        shown = sorted(classes, key=lambda pair: pair[1]["accuracy"])[:WORST]
        title = f"the {WORST} worst of {len(classes)} classes"
    width = max(len(title), *(len(_name(each)) for _, each in shown))
    lines.append(f"\n  {title:<{width}}  images  accuracy  commonest mistake")
    for number, each in shown:
        mistake = _mistake(report, number)
        lines.append(f"  {_name(each):<{width}}  {each['images']:>6}  {each['accuracy']:>8.4f}  {mistake}".rstrip())
    return "\n".join(lines) + "\n"


def _what(report: dict[str, Any]) -> str:
    split = "validation" if report["split"] == "val" else "test"
    limited = f", limited by {report['limited']}" if report.get("limited") else ""
    return f"{report['dataset']}, {report['images']:,} {split} images{limited}"


def _mistake(report: dict[str, Any], number: int) -> str:
    """What a class is most often taken for, and how often."""
    if report["confusion"] is None:
        return ""
    row = list(report["confusion"][number])
    row[number] = 0
    most = max(range(len(row)), key=row.__getitem__)
    return f"{_name(report['classes'][most])} ({row[most]})" if row[most] else ""


def _name(of_class: dict[str, Any]) -> str:
    """A class's name, as long as a column of the table may be."""
    return shortened(printable(of_class["name"]), MOST_NAME)


def _data(trainer: L.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
