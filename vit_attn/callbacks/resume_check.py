"""Checks and messages at the start of a resumed run."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from vit_attn.callbacks.run_checkpoint import VALIDATION_ORDER
from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.checkpoints.io import forget_files
from vit_attn.errors import UserError
from vit_attn.training.schedule import scheduled_rates


class ResumeCheck(L.Callback):
    """Refuses to resume with other images or another batch size, and logs what changed since the checkpoint.

    Args:
        stored: Information about the run in its checkpoint.
        changes: Settings that differ from the checkpoint's and take effect, as ``name before -> after``.
    """

    def __init__(self, stored: Mapping[str, Any], changes: Sequence[str]) -> None:
        self.stored, self.changes = stored, list(changes)
        self.stored_rates: list[float] = []

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the data set and the images per step with those of the checkpoint.

        Raises:
            UserError: If they differ.
        """
        run: Mapping[str, Any] = checkpoint.get(RUN_KEY, {})
        data: Any = getattr(trainer, "datamodule", None)
        if run.get("data") and hasattr(data, "fingerprint"):
            _refuse_other_images(run["data"], data.fingerprint())
        if run.get("data") and run.get("validated_in") != VALIDATION_ORDER and hasattr(data, "limit"):
            _warn_of_validation_order(data.limit("val"))
        batch_size = run.get("settings", {}).get("data", {}).get("batch_size")
        if batch_size is not None and hasattr(data, "batch_size"):
            per_rank = _batch_size(batch_size, data, run["ranks"])
            before, after = per_rank * run["ranks"], data.batch_size * trainer.world_size
            if before != after:
                raise UserError(
                    f"a step of the run has {before} images, {per_rank} on each of {run['ranks']} devices, and would "
                    f"have {after} here: set --data.batch_size so that both agree"
                )
        states = checkpoint.get("optimizer_states") or [{"param_groups": []}]
        self.stored_rates = [group["lr"] for group in states[0]["param_groups"]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the step at which the run resumes and the settings that changed."""
        forget_files()
        total = int(trainer.estimated_stepping_batches)
        rank_zero_info(f"resumed at step {trainer.global_step} of {total}, epoch {trainer.current_epoch + 1}")
        if getattr(trainer, "overfit_batches", 0):
            rank_zero_warn(
                "trainer.overfit_batches starts each epoch again: a run that was stopped within an epoch does not "
                "resume exactly"
            )
        if self.changes:
            rank_zero_info(f"changed: {', '.join(self.changes)}")
        before = self.stored.get("total_steps")
        schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]  # the module sets their rates after this
        rates = [rate for _, rate in scheduled_rates(schedulers)]
        rates = rates or [group["lr"] for group in trainer.optimizers[0].param_groups]
        if before is not None and before != total and self.stored_rates:
            rank_zero_info(
                f"learning rate: {max(rates):.3g} from here, as in a run of {total} steps, and to 0 at the last; "
                f"it was {max(self.stored_rates):.3g}, as in one of {before}"
            )


def _batch_size(setting: int, data: Any, ranks: int) -> int:
    """Return the images that a rank had in a step: fewer than were set, if there were fewer."""
    splits = getattr(data, "splits", None) or {}
    return min(setting, len(splits["train"]) // ranks) if "train" in splits else setting


def _refuse_other_images(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name, value in before.items():
        if name in after and after[name] != value and name != "test files":  # training does not use test files
            raise UserError(
                f"these are not the images of the run to resume: {name} is {after[name]!r} here and {value!r} there; "
                "to start another run from its weights, use --model.weights"
            )


def _warn_of_validation_order(limit: Any) -> None:
    """Warn that an earlier version chose the images of a limited validation in another way."""
    if limit is not None:
        rank_zero_warn(
            f"the run was started by a version that validated the first {limit.images} of {limit.of} images in the "
            "order of their files, mostly of few classes; from here on they are a random part, so accuracies before "
            f"and after cannot be compared, and best.ckpt may be from before: {limit.setting}"
        )
