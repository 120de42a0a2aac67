"""Runs of ``vit-attn fit`` for measurements: start one, and read its accuracy and times by epoch.

Imports no torch, so that a script that only starts runs leaves memory and device to them.
"""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vit_attn.reports.metrics_table import read_metrics

ROOT = Path(__file__).parent.parent
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
FINAL = ("--data.train_split=train+val", "--trainer.limit_val_batches=0")
"""Options of a run that trains on all training images and validates none."""


@dataclass(frozen=True)
class Epoch:
    """Validation at the end of an epoch.

    Args:
        epoch: Its number, from 1.
        step: Optimiser steps until then.
        accuracy: Validation accuracy; None if nothing was validated.
        seconds: Seconds since the start of the run, with all that it did.
        training: Seconds of training steps alone until then; None if the run did not measure them.
    """

    epoch: int
    step: int
    accuracy: float | None
    seconds: float
    training: float | None


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        folder: Its folder.
        epochs: Its epochs.
        wall: Seconds of the whole process, imports and compilation included.
        images_per_second: Training images per second, median over the epochs; None if it was not measured.
    """

    folder: Path
    epochs: list[Epoch]
    wall: float
    images_per_second: float | None = None

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the last epoch."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy after the last epoch, not the best."""
        return self.epochs[-1].accuracy if self.epochs else None

    def row(self) -> dict[str, float | int | None]:
        """Figures of the run for a table."""
        last = self.epochs[-1] if self.epochs else None
        return {
            "accuracy": self.accuracy,
            "epochs": last.epoch if last else None,
            "steps": last.step if last else None,
            "seconds": last.seconds if last else None,
            "training_seconds": last.training if last else None,
            "process_seconds": round(self.wall, 1),
            "images_per_second": self.images_per_second,
        }


def program(options: Sequence[str], log: Path | None = None) -> str:
    """Run ``vit-attn`` of this checkout in a process of its own; what it printed.

    Args:
        options: The command and its options.
        log: File for the output.

    Raises:
        SystemExit: If it fails, with the end of its output.
    """
    command = [sys.executable, "-W", "ignore", "-m", "vit_attn", *options]
    paths = [str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    output = f"{done.stdout}\n{done.stderr}"
    if log is not None:
        log.write_text(output, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"vit-attn {' '.join(options)}\n{output.strip()[-2000:]}")
    return output


def end_run_on_sigterm() -> None:
    """Have SIGTERM, as a batch system sends it, end the run of `program` too, which would go on by itself."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def fit(options: Sequence[str], runs: Path, name: str) -> FinishedRun:
    """Train in a process of its own, in place of an earlier run of that name that did not come to its end.

    Args:
        options: Options of ``fit``.
        runs: Folder of the runs, which only the script writes to.
        name: Name of the run.
    """
    shutil.rmtree(runs / name, ignore_errors=True)
    runs.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    program(["fit", *options, *QUIET, f"--runs={runs}", f"--name={name}"], runs / f"{name}.log")
    seconds = time.perf_counter() - start
    (folder,) = (runs / name).iterdir()
    epochs = read_epochs(folder)
    return FinishedRun(folder, epochs, seconds, images_per_second(folder))


def tested_accuracy(run: FinishedRun) -> float:
    """Accuracy of the last epoch's weights on the test images, without test-time augmentation.

    Args:
        run: The run.
    """
    program(["test", f"--model={run.checkpoint}", "--trainer.enable_progress_bar=false"])
    return json.loads((run.folder / "test.json").read_text(encoding="utf-8"))["top1"]


def read_epochs(run: Path) -> list[Epoch]:
    """Epochs of a run, from its ``metrics.csv``, or from its event files if it has none.

    Args:
        run: Folder of the run.
    """
    rows = _epoch_rows(run)
    return _from_events(run) if rows is None else _from_rows(rows, _batch_size(run))


def _epoch_rows(run: Path) -> list[dict[str, float]] | None:
    """Rows of a run's epochs, in the steps that they took; None of a run without a table."""
    if (table := run / "metrics.csv").is_file():
        names = {"epoch": "epoch", "val/accuracy": "val_accuracy"}
        names |= {f"vit_epoch/{name}": name for name in ("seconds", "images_per_second")}
        rows = [row for row in read_metrics(table) if "vit_epoch/seconds" in row]
        return [{"step": row["step"] + 1} | {names[key]: row[key] for key in names if key in row} for row in rows]
    if (table := run / "epochs.csv").is_file():  # of an older run
        with table.open(newline="", encoding="utf-8") as file:
            return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]
    return None


def _from_rows(rows: list[dict[str, float]], batch_size: int | None) -> list[Epoch]:
    epochs: list[Epoch] = []
    wall, training, steps = 0.0, 0.0, 0
    for row in rows:
        wall += row["seconds"]
        rate, step = row.get("images_per_second"), int(row["step"])
        images = (step - steps) * batch_size if batch_size else None
        training = training + images / rate if rate and images else training
        epochs.append(Epoch(int(row["epoch"]), step, row.get("val_accuracy"), wall, training or None))
        steps = step
    return epochs


def _from_events(run: Path) -> list[Epoch]:
    """Validations by the wall time of their events, counted from the first event, which is written before training."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 1}).Reload()
    if "val/accuracy" not in events.scalars.Keys():
        return []
    start = events.FirstEventTimestamp()
    validations = events.Scalars("val/accuracy")
    return [Epoch(i + 1, each.step, each.value, each.wall_time - start, None) for i, each in enumerate(validations)]


def images_per_second(run: Path) -> float | None:
    """Training images per second of a run, median over its epochs, the first left out where there are others."""
    rates = [row["images_per_second"] for row in _epoch_rows(run) or () if "images_per_second" in row]
    return statistics.median(rates[1:] or rates) if rates else None


def _batch_size(run: Path) -> int | None:
    """Images of a step, from the run's configuration."""
    return _settings(run).get("data", {}).get("batch_size")


def network_options(run: Path) -> list[str]:
    """Options of `fit` for a new network of the architecture of a run."""
    model = _settings(run)["model"]
    return [f"--model.arch={model['arch']}", f"--model.arch_options={json.dumps(model['arch_options'])}"]


def _settings(run: Path) -> dict[str, Any]:
    config = run / "config.yaml"
    return yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}


def run_tests(path: str) -> str:
    """Run tests; the last line of their output.

    Args:
        path: File of the tests, from the root of the repository.

    Raises:
        SystemExit: If one fails.
    """
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", path], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-4000:] + done.stderr[-1000:])
    return done.stdout.strip().splitlines()[-1]
