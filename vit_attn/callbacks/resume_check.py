"""What a resumed run says of itself, and what it refuses to go on with."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from vit_attn.callbacks.run_checkpoint import VALIDATED_IN
from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.checkpoints.io import forget_files
from vit_attn.errors import UserError


class ResumeCheck(L.Callback):
    """Compares the pictures and the size of a step with those of before, and says where the run goes on.

    Args:
        stored: What the checkpoint says of its run.
        changes: Settings that are others than before and are honoured, in words.
    """

    def __init__(self, stored: Mapping[str, Any], changes: Sequence[str]) -> None:
        self.stored, self.changes = stored, list(changes)
        self.rates: list[float] = []

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse other pictures, or another number of them in a step.

        Raises:
            UserError: If so.
        """
        run: Mapping[str, Any] = checkpoint.get(RUN_KEY, {})
        data: Any = getattr(trainer, "datamodule", None)
        if run.get("data") and hasattr(data, "fingerprint"):
            _refuse_other_pictures(run["data"], data.fingerprint())
        if run.get("data") and run.get("validated_in") != VALIDATED_IN and hasattr(data, "limit"):
            _warn_of_other_part(data.limit("val"))
        if run.get("settings") and hasattr(data, "batch_size"):
            before = run["settings"]["data"]["batch_size"] * run["ranks"]
            after = data.batch_size * trainer.world_size
            if before != after:
                raise UserError(
                    f"a step of the run has {before} images, {run['settings']['data']['batch_size']} on each of "
                    f"{run['ranks']} devices, and would have {after} here: set --data.batch_size so that both agree"
                )
        states = checkpoint.get("optimizer_states") or [{"param_groups": []}]
        self.rates = [group["lr"] for group in states[0]["param_groups"]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the run goes on, with what that is other than before."""
        forget_files()
        total = int(trainer.estimated_stepping_batches)
        rank_zero_info(f"resumed at step {trainer.global_step} of {total}, epoch {trainer.current_epoch + 1}")
        if getattr(trainer, "overfit_batches", 0):
            rank_zero_warn("trainer.overfit_batches begins each epoch anew: a run stopped within one is not exact")
        if self.changes:
            rank_zero_info(f"changed: {', '.join(self.changes)}")
        before, rates = self.stored.get("total_steps"), [group["lr"] for group in trainer.optimizers[0].param_groups]
        if before is not None and before != total and self.rates:
            rank_zero_info(
                f"learning rate: {max(rates):.3g} from here, as in a run of {total} steps, and to 0 at the last; "
                f"it was {max(self.rates):.3g}, as in one of {before}"
            )


def _refuse_other_pictures(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name, value in before.items():
        if name in after and after[name] != value and name != "test files":  # which no training sees
            raise UserError(
                f"these are not the pictures of the run that is resumed: {name} is {after[name]!r} here and {value!r} "
                "there; to begin another run from its weights, use --model.weights"
            )


def _warn_of_other_part(limit: Any) -> None:
    """Say that a limited validation is of other images than by the version that began the run."""
    if limit is not None:
        rank_zero_warn(
            f"the run was begun by a version that validated the first {limit.images} of {limit.of} images in the order "
            "of their files, mostly of few classes; from here they are a random part, so accuracies from before and "
            f"after do not compare, and best may be of before: {limit.setting}"
        )
