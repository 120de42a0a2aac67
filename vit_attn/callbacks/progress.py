"""Progress of a command: a line that is redrawn in a terminal, and a line every few minutes elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import ProgressColumn, Task
from rich.text import Text

from vit_attn.callbacks.trainer_state import step_limit
from vit_attn.reports.epoch_log import format_left, format_rate
from vit_attn.reports.progress_report import ProgressReport
from vit_attn.training.metrics import LEFT, SPEED

SHORTEST_BAR = 6
"""Characters of a bar; numbers that leave less are left out, the last one first."""
NUMBERS: dict[str, Callable[[float], str]] = {
    LEFT: lambda minutes: format_left(60 * minutes),
    "train/loss": lambda loss: f"loss {loss:.3f}",
    "val/accuracy": lambda accuracy: f"val acc {accuracy:.4f}",
    SPEED: lambda speed: f"{format_rate(speed)} img/s",
}
"""Numbers beside the bar and their formats, the most important first."""


class EpochProgressBar(RichProgressBar):
    """Progress bar of one line that fits the terminal, and leaves nothing behind when it ends.

    It shows the epoch from 1, or the step where steps limit the run, and the time left of the whole run.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._numbers: dict[str, tuple[object, float]] = {}
        """Value and number of what is shown, by name; a value on the device is read once, where it is new."""

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        """Return a single column, which makes up the line."""
        return [_LineColumn(self)]

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Keep the numbers for the line; Lightning's own column gets none, and the sanity check gives none."""
        if trainer.sanity_checking:
            return {}
        metrics = trainer.progress_bar_metrics
        for name in NUMBERS:
            value = metrics.get(name)
            if value is not None and (name not in self._numbers or self._numbers[name][0] is not value):
                self._numbers[name] = value, float(value)
        return {}

    def line_of(self, task: Task, width: int) -> Text:
        """Return the line of a task.

        Args:
            task: A task of Rich's.
            width: Columns of the terminal.
        """
        if task.id != self.train_progress_bar_id:
            left = task.time_remaining
            parts = [] if left is None else [format_left(left)]
            return progress_line(str(task.description).strip().lower(), task.completed, task.total, parts, width)
        parts = [NUMBERS[name](self._numbers[name][1]) for name in NUMBERS if name in self._numbers]
        trainer = self.trainer
        if (steps := step_limit(trainer)) is not None:
            return progress_line("step", trainer.global_step, steps, parts, width)
        return progress_line(str(task.description).strip(), task.completed, task.total, parts, width)

    def _init_progress(self, trainer: L.Trainer) -> None:
        super()._init_progress(trainer)
        if self.progress is not None:
            self.progress.live.transient = True

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs or -1
        return f"epoch {current_epoch + 1}" + (f"/{epochs}" if epochs > 0 else "")


class ProgressLines(L.Callback):
    """Says how far ``validate``, ``test`` or ``predict`` is, a line a minute, where there is no progress bar.

    Training is said by :class:`~vit_attn.callbacks.throughput.Throughput`.

    Args:
        now: Time in seconds, from any start.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.report: ProgressReport | None = None

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch of ``validate``; those within a training are its own."""
        if trainer.state.fn == "validate":
            self._count(trainer, "validate", batch_idx + 1, trainer.num_val_batches)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch of ``test``."""
        self._count(trainer, "test", batch_idx + 1, trainer.num_test_batches)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch of ``predict``."""
        self._count(trainer, "predict", batch_idx + 1, trainer.num_predict_batches)

    def _count(self, trainer: L.Trainer, command: str, done: int, batches: Sequence[int | float]) -> None:
        if not trainer.is_global_zero:
            return
        if self.report is None:
            self.report = ProgressReport(f"{command}: batch", sum(batches), self.now)
        self.report.advance_to(done)


def progress_line(title: str, done: float, total: float | None, parts: Sequence[str], width: int) -> Text:
    """Format a line with a bar, which takes the columns that the rest leaves.

    >>> progress_line("epoch 1/2", 5, 20, ["3 min left", "loss 1.500"], 50).plain
    'epoch 1/2 ━━━━━━━━━━━ 5/20  3 min left  loss 1.500'
    >>> progress_line("epoch 1/2", 5, 20, ["3 min left", "loss 1.500"], 36).plain
    'epoch 1/2 ━━━━━━━━━ 5/20  3 min left'

    Args:
        title: Text before the bar.
        done: Steps that are done.
        total: Steps in all; None or infinity if that is not known.
        parts: Texts after the bar; the last ones are left out if the line is too long.
        width: Columns of the line.
    """
    known = total is not None and 0 < total < float("inf")
    count = f"{int(done):,}/{int(total or 0):,}" if known else f"{int(done):,}"
    kept = list(parts)
    while True:
        end = "  ".join([count, *kept])
        columns = width - len(title) - len(end) - 2
        if columns >= SHORTEST_BAR or not kept:
            break
        kept.pop()
    columns = max(0, columns)
    filled = min(columns, int(columns * done / total)) if known and total else 0
    return Text.assemble(f"{title} ", ("━" * filled, "cyan"), ("━" * (columns - filled), "bright_black"), f" {end}")


class _LineColumn(ProgressColumn):
    """The only column of the bar.

    Args:
        bar: The bar.
    """

    def __init__(self, bar: EpochProgressBar) -> None:
        self._bar = bar
        super().__init__()

    def render(self, task: Task) -> "_Line":  # pyrefly: ignore[bad-override]
        """Return what is drawn once the width is known."""
        return _Line(self._bar, task)


class _Line:
    def __init__(self, bar: EpochProgressBar, task: Task) -> None:
        self._bar, self._task = bar, task

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, options.max_width - 1))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = self._bar.line_of(self._task, options.max_width)
        line.no_wrap, line.overflow = True, "crop"
        yield line
