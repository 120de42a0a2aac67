"""The two checkpoints of a run: its best weights and its last state."""

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
from torch import nn

from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.errors import TrainingFailed, UserError
from vit_attn.files import check_folder

ACCURACY = "val/accuracy"
VALIDATED_IN = "random order"
"""What a limited validation takes its images from: before this was kept, the order of the files."""
NOT_BEGUN = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
"""Progress of a validation that is to be run again from its beginning, as Lightning's loops understand it."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far.

    Args:
        score: The value.
        step: Steps of the optimiser until then.
        epoch: The epoch, from 0.
    """

    score: float
    step: int
    epoch: int


class RunCheckpoint(ModelCheckpoint):
    """Keeps the best weights by validation accuracy as ``best.ckpt``, and the last state as ``last.ckpt``.

    ``last.ckpt`` is written after every validation, every few minutes of training beside that, and when the run ends or
    is stopped. Weights that are not finite are never the best.

    ``guard`` is called before anything is written, and may refuse the state.

    Args:
        minutes: Minutes of training after which the last state is written between validations; 0 for never.
        monitor: Metric by which the best is chosen; None to keep checkpoints of all epochs or of the last.
        mode: Whether the metric is best at its maximum or at its minimum.
        filename: Name of the best, which may contain ``{epoch}``, ``{step}`` and metrics.
        save_last: Whether the last state is kept.
        **options: What else Lightning's ``ModelCheckpoint`` takes.

    Raises:
        UserError: If ``minutes`` is negative, or if several files would have one name.
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
            save_last=False,  # Lightning writes it only where the best has just changed
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
        self.guard: Callable[[], None] = lambda: None
        self.accuracy: Best | None = None
        self.monitored: Best | None = None
        self.validation_pending = False
        self.saved_at_step, self.saved_as_finished = -1, False
        self.validated_at_step = -1
        self._owed, self._metrics = False, {}
        self._saved_at = time.monotonic()

    @property
    def state_key(self) -> str:
        """One a run, whatever it monitors."""
        return type(self).__qualname__

    @property
    def last_path(self) -> Path:
        """Where the last state is."""
        return Path(self.dirpath or "", "last.ckpt")

    @property
    def due(self) -> bool:
        """Whether so many minutes have gone by since the last state was written, or it could not be written then."""
        return self.keeps_last and (self._owed or 0 < 60 * self.minutes <= time.monotonic() - self._saved_at)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse to train where nothing could be written, before the first step.

        Raises:
            WriteError: If the run's folder cannot be written to or its disk has too little room.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        trainer._logger_connector._callback_metrics.update(self._metrics)
        if trainer.is_global_zero and not _is_trial(trainer):
            files = 1 if self.last_path.is_file() else 3
            check_folder(Path(self.dirpath or ""), files * _bytes_of_checkpoint(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the best, then the last state, which knows of it."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or _is_trial(trainer):
            return
        self.validated_at_step = trainer.global_step
        accuracy = trainer.callback_metrics.get(ACCURACY)
        if accuracy is not None and (self.accuracy is None or float(accuracy) > self.accuracy.score):
            self.accuracy = Best(float(accuracy), trainer.global_step, trainer.current_epoch)
        super().on_validation_end(trainer, pl_module)
        if trainer.fit_loop._should_accumulate():  # the gradients so far would be lost: it is written after the step
            self._owed = True
        else:
            self.write_last(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the last state at the end of the run, before averaged weights take the place of the network's."""
        super().on_train_epoch_end(trainer, pl_module)
        ended = ends_here(trainer) and not (self.saved_as_finished and self.saved_at_step == trainer.global_step)
        if ended:
            self.write_last(trainer)

    def write_last(self, trainer: L.Trainer) -> None:
        """Write the last state; all ranks must call it at the same step."""
        if not self.keeps_last or _is_trial(trainer):
            return
        self.guard()
        self.last_model_path = str(self.last_path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()  # curves reach as far as the state
        trainer.save_checkpoint(self.last_path, weights_only=False)
        if self.saved_at_step < 0 and trainer.is_global_zero and self.last_path.is_file():
            _read_back(self.last_path)
        self.saved_at_step, self.saved_as_finished = trainer.global_step, ends_here(trainer)
        self._owed = False
        self._saved_at = time.monotonic()

    def check_monitor_top_k(self, trainer: L.Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether this is among the best; weights or a value that are not finite never are."""
        if str(self.monitor).startswith("val/") and self.validated_at_step != trainer.global_step:
            return False  # the value is of other weights
        if current is not None and not (torch.isfinite(current) and all_finite(trainer.lightning_module)):
            rank_zero_warn(
                f"step {trainer.global_step}: {self.monitor} or weights are not finite: not kept as the best"
            )
            return False
        chosen = super().check_monitor_top_k(trainer, current)
        if chosen and current is not None and self._is_best(current):
            self.monitored = Best(float(current), trainer.global_step, trainer.current_epoch)
        return chosen

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        if self.monitor is not None and self.monitor not in monitor_candidates and not trainer.enable_validation:
            return  # what is not validated has no best
        self.guard()
        super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _is_best(self, current: torch.Tensor) -> bool:
        if self.monitored is None:
            return True
        sign = 1 if self.mode == "max" else -1
        return sign * float(current) > sign * self.monitored.score

    def _should_save_on_train_epoch_end(self, trainer: L.Trainer) -> bool:
        """Only where nothing is validated; else the best is kept with its validation, which a stop may follow."""
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        return not trainer.enable_validation

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say of what run the checkpoint is, and that its validation is to come where it was written before that."""
        data: Any = getattr(trainer, "datamodule", None)
        checkpoint[RUN_KEY] = {
            "settings": dict(self.settings),
            "options": list(self.options),
            "data": data.fingerprint() if hasattr(data, "fingerprint") else {},
            "validated_in": VALIDATED_IN,
            "ranks": trainer.world_size,
            "total_steps": int(trainer.estimated_stepping_batches),
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1},
            "validation_pending": self.validation_pending,
            "finished": ends_here(trainer) and not self.validation_pending,
        }
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        if self.validation_pending:
            progress |= {"total": dict(NOT_BEGUN), "current": dict(NOT_BEGUN), "is_last_batch": False}
        else:  # one that was run again leaves counts by which the next start would take it for unfinished
            progress["total"] = dict.fromkeys(progress["total"], progress["total"]["completed"])

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics of the last validation, which callbacks ask for at the end of its epoch."""
        metrics = checkpoint.get(RUN_KEY, {}).get("metrics", {})
        self._metrics = {name: torch.tensor(value) for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """What is the best so far; files by their names, since a run's folder may be moved."""
        best = {"accuracy": self.accuracy, "monitored": self.monitored}
        return {
            "monitor": self.monitor,
            "best": {name: asdict(each) for name, each in best.items() if each is not None},
            "files": {Path(path).name: float(score) for path, score in self.best_k_models.items()},
            "best_file": Path(self.best_model_path).name,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best of the run, unless its files are elsewhere: then another run begins from this one."""
        folder = Path(self.dirpath or "")
        best_file = state_dict["best_file"]
        if best_file and not (folder / best_file).is_file():
            return
        best = {name: Best(**each) for name, each in state_dict["best"].items()}
        self.accuracy = best.get("accuracy")
        if state_dict["monitor"] != self.monitor:
            return
        self.monitored = best.get("monitored")
        self.best_model_path = str(folder / best_file) if best_file else ""
        kept = {str(folder / name): torch.tensor(score) for name, score in state_dict["files"].items()}
        self.best_k_models = {path: score for path, score in kept.items() if Path(path).is_file()}
        if self.best_k_models:
            order = sorted(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            worst, best_path = (order[0], order[-1]) if self.mode == "max" else (order[-1], order[0])
            self.kth_best_model_path, self.kth_value = worst, self.best_k_models[worst]
            self.best_model_score = self.best_k_models[best_path]


def ends_here(trainer: L.Trainer) -> bool:
    """Whether the training has taken all its steps or epochs, or a callback asked it to stop."""
    steps, epochs, progress = trainer.max_steps, trainer.max_epochs, trainer.fit_loop.epoch_progress
    done = 0 <= steps <= trainer.global_step
    done |= epochs is not None and 0 <= epochs <= progress.current.state_dict()["processed"]
    return bool(done or (trainer.should_stop and trainer.fit_loop._can_stop_early))


def _is_trial(trainer: L.Trainer) -> bool:
    """Whether this is a run of a few batches that leaves no files."""
    return bool(getattr(trainer, "fast_dev_run", False))


def all_finite(module: nn.Module) -> bool:
    """Whether every weight, and every running mean and the like, is a finite number."""
    numbers = (*module.parameters(), *module.buffers())
    weights = [each.detach() for each in numbers if each.numel() and each.is_floating_point()]
    weights = [each.to_local() if hasattr(each, "to_local") else each for each in weights]
    return all(bool(largest.isfinite()) for largest in torch._foreach_norm(weights, float("inf")))


def _bytes_of_checkpoint(module: nn.Module) -> int:
    """Room for one file: weights, averages, and two states of each that an optimiser keeps."""
    return 4 * sum(each.numel() * each.element_size() for each in module.parameters())


def _read_back(path: Path) -> None:
    """Read the first state that was written.

    Raises:
        TrainingFailed: If it cannot be read, since a callback keeps what a checkpoint must not hold.
    """
    try:
        torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except Exception as error:
        raise TrainingFailed(
            f"{path} cannot be read back: some callback keeps a state that is not made of numbers, texts and tensors "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
