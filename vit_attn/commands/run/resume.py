"""Resumption of a run: its settings and state, and the changes that are allowed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_attn.commands.parsing.renamed import rename_settings
from vit_attn.commands.run.checkpoint import read_run, run_folder
from vit_attn.commands.run.folders import LAST_CHECKPOINT, find_requeued_run, find_run
from vit_attn.commands.run.slurm import was_requeued
from vit_attn.commands.run.stored_config import config_option
from vit_attn.errors import UserError

FIXED = {
    "seed_everything": "all random numbers follow from it",
    "model": "the state is of that network and its schedule",
    "data_module": "these are other images",
    "data.dataset": "these are other images",
    "data.img_size": "these are other images",
    "data.held_out": "these are other images",
    "data.channels": "these are other images",
    "data.columns": "these are other images, or other classes",
    "data.bits": "the network was trained on images as they were",
    "data.normalize": "the network was trained on images as they were",
    "data.balance": "it gives other images and another loss",
    "trainer.accumulate_grad_batches": "it changes the schedule",
    "trainer.limit_train_batches": "it changes the schedule",
    "trainer.overfit_batches": "it changes the schedule",
    "trainer.limit_val_batches": "best would be chosen by other images than before",
}
"""Settings, or groups of them, that a resumed run cannot change, and the reasons."""
CHANGEABLE = frozenset({"model.compile", "model.nonfinite", "model.weights", "model.arch_options.pretrained"})
"""Settings within a fixed group that may change, since the state does not depend on them."""
NOT_COMPARED = frozenset(
    {
        *("ckpt_path", "resume", "name", "runs", "config", "weights_only", "import"),
        *(
            "data.num_workers",
            "data.download",
            "data.memory_budget_gb",
            "data.seed",
            "data.batch_size",
            "data.compile_augment",
        ),
        *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
        *CHANGEABLE,
    }
)
"""Settings that do not affect the training, or that are compared elsewhere."""
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.min_epochs", "trainer.min_steps")


class RunFinished(Exception):
    """The run has trained to its end and was not asked to train longer."""


@dataclass(frozen=True)
class SettingChange:
    """Setting whose value differs from that of the checkpoint.

    Args:
        name: Name with its groups.
        before: Value in the checkpoint.
        after: Value of the resumed run.
    """

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Format as ``name before -> after``.

        >>> str(SettingChange("trainer.max_epochs", 2, 4))
        'trainer.max_epochs 2 -> 4'
        """
        return f"{self.name} {self.before} -> {self.after}"


def expand_resume(options: Sequence[str]) -> tuple[list[str], Path | None]:
    """Replace ``--resume`` by the configuration of the run, before the other options, and its last checkpoint.

    A requeued SLURM job that has started a run with the same options resumes it without ``--resume``.

    Args:
        options: Arguments after ``fit``.

    Returns:
        The options, and the folder of the resumed run, or None for a new one.

    Raises:
        UserError: If there is no such run.
    """
    others, run = _split_resume(options)
    if run is not None and any(option.partition("=")[0] == "--ckpt_path" for option in others):
        raise UserError(
            "--resume takes the last state of a run: leave out --ckpt_path, which starts another run from it"
        )
    if run is None:
        folder = find_requeued_run(options, original_options) if was_requeued() else None
    else:
        folder = find_run(run, others)
    if folder is None:
        return others, None
    return [*config_option(folder), *others, f"--ckpt_path={folder / LAST_CHECKPOINT}"], folder


def original_options(checkpoint: Path) -> list[str] | None:
    """Read from a checkpoint the options that its run was started with."""
    try:
        return read_run(checkpoint).get("options")
    except UserError:
        return None


def resume_command(checkpoint: Path) -> str:
    """Make the command that resumes the run of a checkpoint."""
    folder = run_folder(str(checkpoint))
    option = f"--resume {shlex.quote(str(folder))}" if folder else f"--ckpt_path {shlex.quote(str(checkpoint))}"
    return f"vit-attn fit {option}"


def find_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[SettingChange]:
    """Find settings that differ from the checkpoint's; settings that only one version of the program has are ignored.

    Args:
        stored: Settings in the checkpoint; empty for checkpoints of early versions.
        current: Settings of the resumed run.
    """
    if not stored:
        return []
    before, after = flatten(rename_settings(stored)), flatten(current)
    options = {name for name in (*before, *after) if name.startswith("model.arch_options.")}
    names = dict.fromkeys((*(name for name in before if name in after), *sorted(options)))
    return [
        SettingChange(name, before.get(name), after.get(name))
        for name in names
        if name not in NOT_COMPARED and before.get(name) != after.get(name)
    ]


def refuse_fixed_changes(changes: Sequence[SettingChange], checkpoint: Path) -> None:
    """Refuse changes of settings that a resumed run cannot change.

    Raises:
        UserError: If there are any; all are named.
    """
    refused = [(change, reason) for change in changes if (reason := _fixed_reason(change.name))]
    if refused:
        differences = "; ".join(
            f"{change.name} is {change.after} here and {change.before} there ({reason})" for change, reason in refused
        )
        raise UserError(
            f"{checkpoint} can only be resumed with its own settings: {differences}. To start another run from its "
            f"weights: --model.weights={checkpoint}"
        )


def refuse_model_changes(current: Mapping[str, Any], stored: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse changes of the network's settings, which checkpoints of all versions contain.

    Args:
        current: Settings of the network of the resumed run.
        stored: Those in the checkpoint.
        checkpoint: Path of the checkpoint.

    Raises:
        UserError: If there are any; all are named.
    """
    differences = [
        f"model.{name} is {value} here and {stored[name]} there"
        for name, value in current.items()
        if name in stored and stored[name] != value and f"model.{name}" not in CHANGEABLE
    ]
    if differences:
        raise UserError(f"{checkpoint} can only be resumed with its own settings: {'; '.join(differences)}")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to names with dots.

    >>> flatten({"model": {"lr": 0.1, "arch_options": {}}, "seed": 1})
    {'model.lr': 0.1, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        full_name = f"{prefix}{name}"
        if isinstance(value, Mapping) and "class_path" not in value:
            flat |= flatten(value, f"{full_name}.")
        else:
            flat[full_name] = value
    return flat


def refuse_finished(run: Mapping[str, Any], changes: Sequence[SettingChange], checkpoint: Path) -> None:
    """Refuse to resume a finished run that is not asked to train longer.

    Args:
        run: Information about the run in its checkpoint.
        changes: Settings that differ from the checkpoint's.
        checkpoint: Path of the checkpoint.

    Raises:
        RunFinished: If the run is finished.
        UserError: If it is asked to train for fewer epochs than it has.
    """
    if run.get("finished") and not any(change.name in LENGTH or "callbacks" in change.name for change in changes):
        folder = run_folder(str(checkpoint)) or checkpoint
        limits = [name for name in LENGTH[:3] if flatten(run.get("settings", {})).get(name) not in (None, -1)]
        longer = " or ".join(f"--{name}" for name in limits) or "--trainer.max_epochs"
        raise RunFinished(f"{folder} is finished, after {run['global_step']} steps; to train longer, set {longer}")
    changed = {change.name for change in changes}
    max_steps = flatten(run.get("settings", {})).get("trainer.max_steps") or -1
    if run.get("finished") and "trainer.max_epochs" in changed and 0 < max_steps <= run["global_step"]:
        if "trainer.max_steps" not in changed:
            raise UserError(
                f"{checkpoint} has taken the {max_steps} steps of trainer.max_steps; to train longer by epochs, add "
                "--trainer.max_steps=-1"
            )
    for change in changes:
        if change.name == "trainer.max_epochs" and 0 <= (change.after or -1) <= run["epoch"]:
            raise UserError(
                f"{checkpoint} has trained {run['epoch']} epochs already: trainer.max_epochs={change.after} is less"
            )


def _fixed_reason(name: str) -> str | None:
    return next((reason for fixed, reason in FIXED.items() if name == fixed or name.startswith(f"{fixed}.")), None)


def _split_resume(options: Sequence[str]) -> tuple[list[str], str | None]:
    """Split off the value of ``--resume`` from the other options."""
    others, run, value_follows = [], None, False
    for option in options:
        name, equals, value = option.partition("=")
        if value_follows:
            run, value_follows = option, False
        elif name == "--resume":
            run, value_follows = (value, False) if equals else (None, True)
        else:
            others.append(option)
    if value_follows or run == "":
        raise UserError("--resume needs a value: the folder of a run, last for the newest, or auto")
    return others, run
