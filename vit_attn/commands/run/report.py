"""Messages of ``fit`` at its end: best accuracy, checkpoints, and how to resume."""

import sys
from pathlib import Path
from typing import Any

from vit_attn.commands.run.callbacks import (
    RunCheckpoint,
    Throughput,
    find_run_checkpoint,
    find_throughput,
    writes_events,
)
from vit_attn.commands.run.checkpoint import read_run
from vit_attn.commands.run.resume import resume_command
from vit_attn.console import CONSOLE
from vit_attn.errors import UserError
from vit_attn.reports.epoch_log import format_flops, format_rate, format_seconds
from vit_attn.training.stopping import Stopped
from vit_attn.training.throughput import Activity

SHARES: dict[str, Activity] = {
    "steps": "train",
    "input": "input",
    "start-up": "startup",
    "validation": "validation",
    "checkpoints": "checkpoint",
    "attention logging": "logging",
}
"""Activities in the report, by the name that they have there."""


def report_end(trainer: Any, seconds: float, runs: str) -> None:
    """Print best accuracy, time, checkpoints with their steps, and the command that shows the run.

    Args:
        trainer: Trainer of the run.
        seconds: Duration of the training.
        runs: Folder of all runs.
    """
    checkpoint = find_run_checkpoint(trainer)
    if checkpoint is None or not trainer.is_global_zero:
        return
    throughput = find_throughput(trainer)
    lines = [
        f"best validation accuracy: {_accuracy(checkpoint, trainer)}",
        _time(seconds, throughput),
        *([] if throughput is None else _speed(throughput)),
        f"checkpoint: {_best_file(checkpoint)}",
    ]
    if checkpoint.keeps_last and checkpoint.last_path.is_file() and checkpoint.best_model_path:  # else it stands there
        lines.append(f"last state: {_with_step(checkpoint.last_path)}")
    if changes := _patches(trainer):
        lines.append(f"patches: {changes}")
    if writes_events(trainer):
        lines.append(f"view it: tensorboard --logdir {runs}")
    CONSOLE.say("\n" + "\n".join(lines))


def report_validation(trainer: Any) -> None:
    """Print loss and accuracy of ``validate``."""
    metrics = trainer.callback_metrics
    if trainer.is_global_zero:
        values = ", ".join(f"{name} {float(metrics[f'val/{name}']):.4f}" for name in ("loss", "accuracy"))
        CONSOLE.say(f"validation: {values}{_limit(trainer)}")


def report_stop(trainer: Any, stopped: Stopped) -> None:
    """Print the step at which the run was stopped, the path of its state, and the command that resumes it."""
    checkpoint = find_run_checkpoint(trainer)
    if checkpoint is None or not trainer.is_global_zero:
        return
    event = f"{stopped} at step {trainer.global_step}"
    if checkpoint.saved_at_step < 0:
        CONSOLE.say(f"vit-attn: {event}: no state is kept", sys.stderr)
        return
    path = checkpoint.last_path
    CONSOLE.say(f"vit-attn: {event}: its state is in {path}; to resume: {resume_command(path)}", sys.stderr)


def _time(seconds: float, throughput: Throughput | None) -> str:
    """Describe the time, and its shares by activity but for those that took next to none."""
    text = f"time: {format_seconds(seconds)}"
    if throughput is None:
        return text
    usage = throughput.meter.usage()
    if throughput.resumed:
        text += f", {format_seconds(usage.total_seconds)} with the time before it was resumed"
    shares = {name: usage.fraction(activity) for name, activity in SHARES.items()}
    return f"{text} ({', '.join(f'{name} {_percent(share)}' for name, share in shares.items() if share >= 0.0005)})"


def _speed(throughput: Throughput) -> list[str]:
    """Describe speed and memory."""
    usage, lines = throughput.meter.usage(), []
    if usage.images_per_second is not None:
        speed = f"speed: {format_rate(usage.images_per_second)} images/s"
        if throughput.meter.flops_per_image:
            speed += f", {format_flops(throughput.meter.flops_per_image)} per image"
        mfu = throughput.meter.mfu(usage)
        lines.append(speed + (f", MFU {_percent(mfu)}" if mfu is not None else ""))
    if throughput.memory is not None:
        lines.append(f"peak memory: {throughput.memory:.2f} GB")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _accuracy(checkpoint: RunCheckpoint, trainer: Any) -> str:
    best = checkpoint.best_accuracy
    if best is None:
        return "none, nothing was validated"
    return f"{best.score:.4f} (step {best.step}, epoch {best.epoch + 1}){_limit(trainer)}"


def _limit(trainer: Any) -> str:
    """Describe the part of the images that was validated, if validations were limited."""
    data = getattr(trainer, "datamodule", None)
    limit = data.limit("val") if hasattr(data, "limit") else None
    return f", on {limit.images:,} of {limit.of:,} images" if limit else ""


def _patches(trainer: Any) -> str:
    """Describe when the patches changed, if they were to; empty if not."""
    schedule = getattr(trainer.lightning_module, "patches", None)
    return schedule.describe() if schedule is not None else ""


def _best_file(checkpoint: RunCheckpoint) -> str:
    path = Path(checkpoint.best_model_path or checkpoint.last_model_path)
    if not path.name:
        return "none"
    text, best = _with_step(path), checkpoint.best_monitored
    if best is None or not checkpoint.best_model_path:
        return text
    if f"(step {best.step})" not in text:
        return f"{text}, not of step {best.step}, which was the best by {checkpoint.monitor}"
    if checkpoint.monitor == "val/accuracy":
        return text
    return f"{text}, the best by {checkpoint.monitor}: {best.score:.4f}"


def _with_step(path: Path) -> str:
    """Append the step that a checkpoint contains to its path."""
    try:
        return f"{path} (step {read_run(path)['global_step']})"
    except UserError as error:
        return str(error)
