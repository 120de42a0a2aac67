"""The two checkpoints of a run: ``best.ckpt`` and ``last.ckpt``."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from vit_attn.callbacks.checkpoint_checks import all_finite, check_readable, checkpoint_bytes
from vit_attn.callbacks.trainer_state import is_accumulating, is_run_finished, is_trial
from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.errors import UserError
from vit_attn.files import check_folder

ACCURACY = "val/accuracy"
VALIDATION_ORDER = "random order"
"""Stored with a run: a limited validation takes a random part. Runs without the entry took the first files in order."""
NOT_STARTED = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
"""Progress of a validation that is to be run again from its first batch, in the terms of Lightning's loops."""


@dataclass(frozen=True)
class BestScore:
    """Best value of a metric so far.

    Args:
        score: The value.
        step: Optimiser steps until then.
        epoch: The epoch, from 0.
    """

    score: float
    step: int
    epoch: int


class RunCheckpoint(ModelCheckpoint):
    """Saves the weights with the best validation accuracy as ``best.ckpt`` and the last state as ``last.ckpt``.

    ``last.ckpt`` is written after every validation, every few minutes of training in between, and when the run ends or
    is stopped. Weights that are not finite are never saved as the best. ``before_write`` is called before anything is
    written and may raise to refuse the state.

    Args:
        minutes: Minutes of training after which the last state is written between validations; 0 for never.
        monitor: Metric that chooses the best checkpoint; None to keep checkpoints of all epochs or only the last.
        mode: ``max`` if a higher value of the metric is better, ``min`` if a lower one is.
        filename: Name of the best checkpoint, which may contain ``{epoch}``, ``{step}`` and metrics.
        save_last: Whether the last state is kept.
        **options: Further options of Lightning's ``ModelCheckpoint``.

    Raises:
        UserError: If ``minutes`` is negative, or if several files would get the same name.
    """

    def __init__(
        self,
        minutes: float = 5.0,
        monitor: str | None = ACCURACY,
        mode: Literal["min", "max"] = "max",
        filename: str | None = "best",
        save_last: bool = True,
        auto_insert_metric_name: bool = False,
        enable_version_counter: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename=filename,
            save_last=False,  # Lightning writes it only when the best has just changed
            auto_insert_metric_name=auto_insert_metric_name,
            enable_version_counter=enable_version_counter,
            **options,
        )
        if minutes < 0:
            raise UserError(f"checkpoint.minutes must be at least 0, got {minutes}")
        if self.save_top_k not in (0, 1) and "{" not in (filename or "{step}"):
            raise UserError(
                f"checkpoint.save_top_k={self.save_top_k} keeps several files, which {filename!r} does not tell apart: "
                "add --checkpoint.filename={step}"
            )
        self.minutes, self.keeps_last = minutes, save_last
        self.settings: Mapping[str, Any] = {}
        self.options: list[str] = []
        self.before_write: Callable[[], None] = lambda: None
        self.best_accuracy: BestScore | None = None
        self.best_monitored: BestScore | None = None
        self.validation_pending = False
        self.saved_at_step, self.saved_as_finished = -1, False
        self.validated_at_step = -1
        self._write_pending, self._restored_metrics = False, {}
        self._saved_at = time.monotonic()

    @property
    def state_key(self) -> str:
        """Name of this callback's state in a checkpoint; the same for every monitored metric."""
        return type(self).__qualname__

    @property
    def last_path(self) -> Path:
        """Path of ``last.ckpt``."""
        return Path(self.dirpath or "", "last.ckpt")

    @property
    def due(self) -> bool:
        """True if ``minutes`` have passed since the last state was written, or if that write had to be postponed."""
        return self.keeps_last and (self._write_pending or 0 < 60 * self.minutes <= time.monotonic() - self._saved_at)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check before the first step that checkpoints can be written.

        Raises:
            WriteError: If the run's folder cannot be written to or its disk has too little room.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        trainer._logger_connector._callback_metrics.update(self._restored_metrics)
        if trainer.is_global_zero and not is_trial(trainer):
            files = 1 if self.last_path.is_file() else 3
            check_folder(Path(self.dirpath or ""), files * checkpoint_bytes(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the best, then the last state, which contains the best score."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or is_trial(trainer):
            return
        self.validated_at_step = trainer.global_step
        accuracy = trainer.callback_metrics.get(ACCURACY)
        if accuracy is not None and (self.best_accuracy is None or float(accuracy) > self.best_accuracy.score):
            self.best_accuracy = BestScore(float(accuracy), trainer.global_step, trainer.current_epoch)
        super().on_validation_end(trainer, pl_module)
        if is_accumulating(trainer):  # the gradients so far would be lost: write after the optimiser step
            self._write_pending = True
        else:
            self.write_last(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last state at the end of the run, before averaged weights replace the network's."""
        super().on_train_epoch_end(trainer, pl_module)
        if is_run_finished(trainer) and not (self.saved_as_finished and self.saved_at_step == trainer.global_step):
            self.write_last(trainer)

    def write_last(self, trainer: L.Trainer) -> None:
        """Write the last state; all ranks must call it at the same step."""
        if not self.keeps_last or is_trial(trainer):
            return
        self.before_write()
        self.last_model_path = str(self.last_path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()  # curves must reach as far as the state
        trainer.save_checkpoint(self.last_path, weights_only=False)
        if self.saved_at_step < 0 and trainer.is_global_zero and self.last_path.is_file():
            check_readable(self.last_path)
        self.saved_at_step, self.saved_as_finished = trainer.global_step, is_run_finished(trainer)
        self._write_pending = False
        self._saved_at = time.monotonic()

    def check_monitor_top_k(self, trainer: L.Trainer, current: torch.Tensor | None = None) -> bool:
        """Return true if these weights are among the best; never for weights or a metric that are not finite."""
        if str(self.monitor).startswith("val/") and self.validated_at_step != trainer.global_step:
            return False  # the metric belongs to earlier weights
        if current is not None and not (torch.isfinite(current) and all_finite(trainer.lightning_module)):
            rank_zero_warn(
                f"step {trainer.global_step}: {self.monitor} or weights are not finite: not kept as the best"
            )
            return False
        chosen = super().check_monitor_top_k(trainer, current)
        if chosen and current is not None and self._is_best(current):
            self.best_monitored = BestScore(float(current), trainer.global_step, trainer.current_epoch)
        return chosen

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        if self.monitor is not None and self.monitor not in monitor_candidates and not trainer.enable_validation:
            return  # a run without validation has no best
        self.before_write()
        super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _is_best(self, current: torch.Tensor) -> bool:
        if self.best_monitored is None:
            return True
        sign = 1 if self.mode == "max" else -1
        return sign * float(current) > sign * self.best_monitored.score

    def _should_save_on_train_epoch_end(self, trainer: L.Trainer) -> bool:
        """Save at an epoch's end only without validation; else with the validation, since a stop may follow it."""
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        return not trainer.enable_validation

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store what resuming the run needs, including a validation that is still to come."""
        data: Any = getattr(trainer, "datamodule", None)
        checkpoint[RUN_KEY] = {
            "settings": dict(self.settings),
            "options": list(self.options),
            "data": data.fingerprint() if hasattr(data, "fingerprint") else {},
            "validated_in": VALIDATION_ORDER,
            "ranks": trainer.world_size,
            "total_steps": int(trainer.estimated_stepping_batches),
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1},
            "validation_pending": self.validation_pending,
            "finished": is_run_finished(trainer) and not self.validation_pending,
        }
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        if self.validation_pending:
            progress |= {"total": dict(NOT_STARTED), "current": dict(NOT_STARTED), "is_last_batch": False}
        else:  # after a repeated validation the counts differ, and the next start would take it for unfinished
            progress["total"] = dict.fromkeys(progress["total"], progress["total"]["completed"])

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics of the last validation, which callbacks read at the end of its epoch."""
        metrics = checkpoint.get(RUN_KEY, {}).get("metrics", {})
        self._restored_metrics = {name: torch.tensor(value) for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores, and file names without their folder, since a run's folder may be moved."""
        best = {"accuracy": self.best_accuracy, "monitored": self.best_monitored}
        return {
            "monitor": self.monitor,
            "best": {name: asdict(each) for name, each in best.items() if each is not None},
            "files": {Path(path).name: float(score) for path, score in self.best_k_models.items()},
            "best_file": Path(self.best_model_path).name,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best of the run; without its files this is another run, which has its own best."""
        folder = Path(self.dirpath or "")
        best_file = state_dict["best_file"]
        if best_file and not (folder / best_file).is_file():
            return
        best = {name: BestScore(**each) for name, each in state_dict["best"].items()}
        self.best_accuracy = best.get("accuracy")
        if state_dict["monitor"] != self.monitor:
            return
        self.best_monitored = best.get("monitored")
        self.best_model_path = str(folder / best_file) if best_file else ""
        kept = {str(folder / name): torch.tensor(score) for name, score in state_dict["files"].items()}
        self.best_k_models = {path: score for path, score in kept.items() if Path(path).is_file()}
        if self.best_k_models:
            order = sorted(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            worst, best_path = (order[0], order[-1]) if self.mode == "max" else (order[-1], order[0])
            self.kth_best_model_path, self.kth_value = worst, self.best_k_models[worst]
            self.best_model_score = self.best_k_models[best_path]
