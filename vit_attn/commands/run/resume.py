"""Going on with a run: which one, with what settings, and what may be changed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_attn.commands.run.checkpoint import read_run, run_folder
from vit_attn.commands.run.folders import LAST, find_run, find_run_of_job
from vit_attn.commands.run.slurm import was_requeued
from vit_attn.commands.run.stored_config import config_to_resume
from vit_attn.errors import UserError

FIXED = {
    "seed_everything": "all that is random follows from it",
    "model": "the state is of that network and its schedule",
    "data.dataset": "these are other pictures",
    "data.img_size": "these are other pictures",
    "data.channels": "these are other pictures",
    "data.columns": "these are other pictures, or other classes",
    "data.bits": "the network knows pictures as they were",
    "data.normalize": "the network knows pictures as they were",
    "data.balance": "it gives other images and another loss",
    "trainer.accumulate_grad_batches": "it bends the schedule",
    "trainer.limit_train_batches": "it bends the schedule",
    "trainer.overfit_batches": "it bends the schedule",
    "trainer.limit_val_batches": "best would be chosen by other images than before",
}
"""Settings, or groups of them, that a run goes on with or not at all, and why."""
FREE = frozenset({"model.compile", "model.nonfinite", "model.weights", "model.arch_options.pretrained"})
"""Settings within a fixed group that do not matter to the state."""
UNSAID = frozenset(
    {
        *("ckpt_path", "resume", "name", "runs", "config", "weights_only"),
        *("data.num_workers", "data.download", "data.memory_budget_gb", "data.seed", "data.batch_size"),
        *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
        *FREE,
    }
)
"""Settings that change nothing of the training, or that are compared elsewhere."""
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.min_epochs", "trainer.min_steps")


class Finished(Exception):
    """The run has nothing left to do."""


@dataclass(frozen=True)
class Change:
    """A setting that is another one than before."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """In words.

        >>> str(Change("trainer.max_epochs", 2, 4))
        'trainer.max_epochs 2 -> 4'
        """
        return f"{self.name} {self.before} -> {self.after}"


def take_resume(options: Sequence[str]) -> tuple[list[str], Path | None]:
    """The options with the run's own settings before them and its state after them, and the run's folder.

    Without ``--resume`` that is so for a SLURM job that was queued again, if it had begun a run with the same options.

    Args:
        options: What followed ``fit``.

    Raises:
        UserError: If there is no such run.
    """
    others, which = _split(options)
    if which is not None and any(option.partition("=")[0] == "--ckpt_path" for option in others):
        raise UserError(
            "--resume takes the last state of a run: leave out --ckpt_path, which begins another run from it"
        )
    if which is None:
        folder = find_run_of_job(options, begun_with) if was_requeued() else None
    else:
        folder = find_run(which, others)
    if folder is None:
        return others, None
    return ["--config", config_to_resume(folder), *others, f"--ckpt_path={folder / LAST}"], folder


def begun_with(path: Path) -> list[str] | None:
    """The options of the command that began the run of a checkpoint."""
    try:
        return read_run(path).get("options")
    except UserError:
        return None


def command_to_go_on(checkpoint: Path) -> str:
    """The command that goes on with the run that wrote a checkpoint."""
    folder = run_folder(str(checkpoint))
    option = f"--resume {shlex.quote(str(folder))}" if folder else f"--ckpt_path {shlex.quote(str(checkpoint))}"
    return f"vit-attn fit {option}"


def changes(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Change]:
    """What is set otherwise than before; what only one version of the program knows is left out."""
    if not stored:  # by an earlier version, which kept the network's alone
        return []
    before, after = flat(stored), flat(asked)
    options = {name for name in (*before, *after) if name.startswith("model.arch_options.")}
    names = dict.fromkeys((*(name for name in before if name in after), *sorted(options)))
    return [
        Change(name, before.get(name), after.get(name))
        for name in names
        if name not in UNSAID and before.get(name) != after.get(name)
    ]


def refuse_fixed(found: Sequence[Change], path: Path) -> None:
    """Refuse to go on with other settings than a state can go on with.

    Raises:
        UserError: If there are some; all are named.
    """
    refused = [(change, why) for change in found if (why := _why_fixed(change.name))]
    if refused:
        told = "; ".join(
            f"{change.name} is {change.after} here and {change.before} there ({why})" for change, why in refused
        )
        raise UserError(
            f"{path} can only be resumed with its own settings: {told}. To begin another run from its weights: "
            f"--model.weights={path}"
        )


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings of all groups under one name each.

    >>> flat({"model": {"lr": 0.1, "arch_options": {}}, "seed": 1})
    {'model.lr': 0.1, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        whole = f"{above}{name}"
        if isinstance(value, Mapping) and "class_path" not in value:
            found |= flat(value, f"{whole}.")
        else:
            found[whole] = value
    return found


def refuse_finished(run: Mapping[str, Any], found: Sequence[Change], path: Path, step: int) -> None:
    """End where a run is finished and is not asked to train longer.

    Raises:
        Finished: If so.
        UserError: If it is asked to train for less than it has.
    """
    if run.get("finished") and not any(change.name in LENGTH or "callbacks" in change.name for change in found):
        which = run_folder(str(path)) or path
        limits = [name for name in LENGTH[:3] if flat(run.get("settings", {})).get(name) not in (None, -1)]
        longer = " or ".join(f"--{name}" for name in limits) or "--trainer.max_epochs"
        raise Finished(f"{which} is finished, after {step} steps; to train longer, set {longer}")
    for change in found:
        if change.name == "trainer.max_epochs" and 0 <= (change.after or -1) <= run["epoch"]:
            raise UserError(
                f"{path} has trained {run['epoch']} epochs already: trainer.max_epochs={change.after} is less"
            )


def _why_fixed(name: str) -> str | None:
    return next((why for fixed, why in FIXED.items() if name == fixed or name.startswith(f"{fixed}.")), None)


def _split(options: Sequence[str]) -> tuple[list[str], str | None]:
    """The options without ``--resume``, and its value."""
    others, which, following = [], None, False
    for option in options:
        name, given, value = option.partition("=")
        if following:
            which, following = option, False
        elif name == "--resume":
            which, following = (value, False) if given else (None, True)
        else:
            others.append(option)
    if following or which == "":
        raise UserError("--resume needs a value: the folder of a run, last for the newest, or auto")
    return others, which
