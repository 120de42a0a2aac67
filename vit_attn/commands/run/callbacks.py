"""Callbacks of each command, assembled in one place: no other module of the commands imports a callback."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from vit_attn.callbacks import (
    AttentionLogger,
    ChartLayout,
    EpochProgressBar,
    FinetuneComparison,
    HParams,
    LearningRates,
    LoggingInterval,
    PredictionWriter,
    ProgressLines,
    ResumeCheck,
    RunCheckpoint,
    RunControl,
    RunCurves,
    RunLogger,
    RunSummary,
    StopBeforeStep,
    TestReport,
    Throughput,
    TrainingBatch,
    TrialReport,
    select_hparams,
)
from vit_attn.commands.run.slurm import requeue
from vit_attn.commands.run.trainer_checks import check_callbacks, check_weight_averaging
from vit_attn.console import CONSOLE, is_interactive
from vit_attn.reports.prediction_table import check_output
from vit_attn.task import LOGGED
from vit_attn.training import stopping


def add_callback_options(parser: LightningArgumentParser) -> None:
    """Add the options of callbacks that every run has: ``--attention``, ``--comparison`` and ``--checkpoint``."""
    parser.add_lightning_class_args(AttentionLogger, "attention")
    parser.add_lightning_class_args(FinetuneComparison, "comparison")
    parser.add_lightning_class_args(RunCheckpoint, "checkpoint")


def fit_callbacks(
    checkpoint: RunCheckpoint,
    config: Any,
    resumed: bool,
    stored: Mapping[str, Any] | None = None,
    changes: Sequence[object] = (),
) -> list[Callback]:
    """Make the callbacks of ``fit`` that have no options.

    Args:
        checkpoint: Callback that writes the run's checkpoints.
        config: Configuration of the run.
        resumed: Whether the run is resumed in its folder.
        stored: Information about the run in the checkpoint that this one starts from, if there is one.
        changes: Settings that differ from that checkpoint's.
    """
    callbacks: list[Callback] = [Throughput(resumed), RunControl(checkpoint, on_stop=_requeue_job)]
    callbacks.append(LoggingInterval(config["trainer"]["log_every_n_steps"]))
    if config["trainer"]["enable_model_summary"] is not False:
        callbacks.append(RunSummary())
    if stored is not None:
        callbacks.append(ResumeCheck(stored, [str(change) for change in changes]))
    if config["trainer"]["logger"] is not False:
        callbacks += [LearningRates(), TrainingBatch(), ChartLayout(), HParams(select_hparams(config), resumed)]
        callbacks.append(RunCurves())
    return callbacks


def run_logger(folder: Path, first_step: int | None) -> RunLogger:
    """Make the logger of a run.

    Args:
        folder: Folder of the run.
        first_step: First step that a resumed run writes again; None for a new run.
    """
    return RunLogger(folder, first_step)


def loggers_without_events(logger: Logger | Sequence[Logger] | bool) -> list[Logger]:
    """List the user's loggers if none of them writes TensorBoard's events, so that the run's own is to be added.

    Args:
        logger: Setting of the trainer; ``False`` for none.
    """
    loggers = [] if isinstance(logger, bool) else [logger] if isinstance(logger, Logger) else list(logger)
    return [] if any(isinstance(each, TensorBoardLogger) for each in loggers) else loggers


def trial_callbacks(report: Callable[[int, float], bool] | None) -> list[Callback]:
    """Make the callbacks of a trial of a sweep.

    Args:
        report: Function of each validation's step and accuracy; None if the run is no trial.
    """
    return [] if report is None else [TrialReport(report)]


def report_callbacks(folder: Path, in_run: bool) -> list[Callback]:
    """Make the callbacks of ``test``.

    Args:
        folder: Folder of the report.
        in_run: Whether that is the folder of a run, whose TensorBoard shows the test.
    """
    return [TestReport(folder, in_run)]


def prediction_callbacks(folder: Path, options: Mapping[str, Any]) -> list[Callback]:
    """Make the callbacks of ``predict``.

    Args:
        folder: Folder of the table, unless the options have a path.
        options: Options of the table: ``path``, ``top_k`` and ``overwrite``.

    Raises:
        UserError: If the table cannot be written.
    """
    path = options.get("path") or folder / "predictions.csv"
    check_output(path, options.get("overwrite", False))
    return [PredictionWriter(str(path), options.get("top_k"))]


def progress_callbacks(command: str, settings: Any) -> list[Callback]:
    """Make the progress bar of a command in a terminal, unless the user has one or wants none, else its lines.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        settings: Settings of the trainer.
    """
    given = settings.callbacks or []
    has_bar = any(isinstance(each, ProgressBar) for each in (given if isinstance(given, list) else [given]))
    if is_interactive():
        return [] if has_bar or settings.enable_progress_bar is False else [EpochProgressBar()]
    return [] if command == "fit" else [ProgressLines()]


def hide_progress_bar(trainer: Trainer) -> None:
    """Hide the progress bar where it cannot be redrawn: in a file it would be a mess of control characters."""
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is not None and not is_interactive():
        bar.disable()


def order_callbacks(trainer: Trainer) -> None:
    """Put the callback that stops before a step first, and after it the one that times what all others do."""
    callbacks: Any = getattr(trainer, "callbacks", [])
    callbacks.sort(key=lambda each: not isinstance(each, Throughput))  # keeps the order otherwise
    for control in [each for each in callbacks if isinstance(each, RunControl)]:
        callbacks.insert(0, StopBeforeStep(control))


def check_before_fit(trainer: Trainer, task: Any, data: Any) -> None:
    """Check the callbacks of a run, including those of the user, before anything is written.

    Raises:
        UserError: If a callback cannot work with this trainer, network or data.
    """
    callbacks: Any = getattr(trainer, "callbacks", [])
    check_callbacks(callbacks, LOGGED, getattr(trainer, "limit_val_batches", 1) != 0)
    check_weight_averaging(callbacks, task.hparams["ema"])
    for callback in callbacks:
        if isinstance(callback, AttentionLogger):
            callback.check(data, task)
        elif isinstance(callback, TrialReport):
            callback.check(trainer)


def find_run_checkpoint(trainer: Trainer) -> RunCheckpoint | None:
    """Find the callback that writes the run's checkpoints; other checkpoint callbacks are the user's own."""
    return _find(trainer, RunCheckpoint)


def find_throughput(trainer: Trainer) -> Throughput | None:
    """Find the callback that measured the speed of the run."""
    return _find(trainer, Throughput)


def writes_events(trainer: Trainer) -> bool:
    """Return true if TensorBoard can show the run."""
    return any(isinstance(each, TensorBoardLogger) for each in getattr(trainer, "loggers", []))


def received_signal(trainer: Trainer) -> int:
    """Return the signal that the run received, or 0."""
    control = _find(trainer, RunControl)
    return control.stop_signal if control else 0


def num_failed_predictions(trainer: Trainer) -> int:
    """Return the number of images without a prediction."""
    writer = _find(trainer, PredictionWriter)
    return writer.num_failed if writer else 0


def _find(trainer: Trainer, kind: type) -> Any:
    return next((each for each in getattr(trainer, "callbacks", []) if isinstance(each, kind)), None)


def _requeue_job(signum: int) -> None:
    """Requeue the SLURM job, if the signal asks for that."""
    if signum == stopping.REQUEUE:
        CONSOLE.say(f"vit-attn: {requeue()}", sys.stderr)
