"""What ``fit`` says at its end: how well it went, what is kept, and how to go on."""

import sys
from pathlib import Path
from typing import Any

from vit_attn.callbacks.run_checkpoint import Best, RunCheckpoint
from vit_attn.commands.run.checkpoint import read_run
from vit_attn.commands.run.resume import command_to_go_on
from vit_attn.errors import UserError
from vit_attn.training.stopping import Stopped


def report_end(trainer: Any, seconds: float, runs: str) -> None:
    """Print the best accuracy, the time, the checkpoints with their steps, and how to look at the run.

    Args:
        trainer: That of the run.
        seconds: That the training took.
        runs: Folder of all runs.
    """
    checkpoint = checkpoint_of(trainer)
    if checkpoint is None or not trainer.is_global_zero:
        return
    minutes, rest = divmod(round(seconds), 60)
    lines = [
        f"best validation accuracy: {_accuracy(checkpoint.accuracy)}{_part(trainer)}",
        f"time: {minutes} min {rest} s",
        f"checkpoint: {_best_file(checkpoint)}",
    ]
    if checkpoint.keeps_last and checkpoint.last_path.is_file():
        lines.append(f"last state: {_with_step(checkpoint.last_path)}")
    sys.stdout.write("\n" + "\n".join([*lines, f"look at it: tensorboard --logdir {runs}"]) + "\n")


def report_stop(trainer: Any, stopped: Stopped) -> None:
    """Say at which step the run was stopped, where its state is, and the command that goes on."""
    checkpoint = checkpoint_of(trainer)
    if checkpoint is None or not trainer.is_global_zero:
        return
    sys.stdout.flush()
    where = f"{stopped} at step {trainer.global_step}"
    if checkpoint.saved_at_step < 0:
        sys.stderr.write(f"vit-attn: {where}: no state is kept\n")
        return
    path = checkpoint.last_path
    sys.stderr.write(f"vit-attn: {where}: its state is in {path}; to go on: {command_to_go_on(path)}\n")


def checkpoint_of(trainer: Any) -> RunCheckpoint | None:
    """What keeps the run's checkpoints; other callbacks of that kind are the user's own affair."""
    return next((each for each in trainer.callbacks if isinstance(each, RunCheckpoint)), None)


def _accuracy(best: Best | None) -> str:
    if best is None:
        return "none, nothing was validated"
    return f"{best.score:.4f} (step {best.step}, epoch {best.epoch + 1})"


def _part(trainer: Any) -> str:
    """Of how many images the accuracies are, where validations were limited."""
    data = getattr(trainer, "datamodule", None)
    limit = data.limit("val") if hasattr(data, "limit") else None
    return f", on {limit.images:,} of {limit.of:,} images" if limit else ""


def _best_file(checkpoint: RunCheckpoint) -> str:
    path = Path(checkpoint.best_model_path or checkpoint.last_model_path)
    if not path.name:
        return "none"
    told, best = _with_step(path), checkpoint.monitored
    if best is None or not checkpoint.best_model_path:
        return told
    if f"(step {best.step})" not in told:
        return f"{told}, not of step {best.step}, which was the best by {checkpoint.monitor}"
    return (
        told if checkpoint.monitor == "val/accuracy" else f"{told}, the best by {checkpoint.monitor}: {best.score:.4f}"
    )


def _with_step(path: Path) -> str:
    """The file with the step that it says of itself."""
    try:
        return f"{path} (step {read_run(path)['global_step']})"
    except UserError as error:
        return str(error)
