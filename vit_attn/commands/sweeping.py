"""Trials of a sweep: runs of ``fit`` whose settings Optuna proposes and whose accuracies it compares."""

import contextlib
import functools
import gc
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from vit_attn.commands.lightning import run_lightning
from vit_attn.commands.parsing.light_parser import check_options
from vit_attn.commands.run.folders import LAST_CHECKPOINT
from vit_attn.commands.run.name import check_run_name, check_runs_folder
from vit_attn.commands.search_space import Parameter
from vit_attn.console import CONSOLE
from vit_attn.errors import TrainingFailed, UserError, is_out_of_memory, one_line
from vit_attn.parts import imported_parts
from vit_attn.training import stopping

JOURNAL = "sweep.journal"
"""File of Optuna's storage in the folder of a sweep."""
SHOWN = 5
"""Trials that the report lists."""
SIGNALLED = 128
"""Exit codes above it are of runs that a signal stopped."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep was asked to do.

    Args:
        parameters: Settings to search.
        options: Options of ``fit`` that all trials have.
        name: Name of the sweep.
        runs: Folder of all runs.
        trials: Number of trials in all, with those of earlier starts.
        prune: ``median`` to end trials that are below the median of the earlier ones, ``none`` to end none.
    """

    parameters: tuple[Parameter, ...]
    options: tuple[str, ...]
    name: str
    runs: str
    trials: int
    prune: str

    @property
    def folder(self) -> Path:
        """Folder of the sweep."""
        return Path(self.runs, self.name)

    def run_name(self, number: int) -> str:
        """Name of the run of a trial, which has the number that Optuna gives it plus 1."""
        return f"{self.name}/{number + 1:03}"

    def find_run(self, number: int) -> Path | None:
        """Find the newest run of a trial that has written its state."""
        found = sorted(Path(self.runs, self.run_name(number)).glob(f"*/{LAST_CHECKPOINT.as_posix()}"))
        return found[-1].parent.parent if found else None


def run_sweep(sweep: Sweep) -> int:
    """Run the trials that are left, and print the best.

    Args:
        sweep: The sweep.

    Returns:
        The exit code: 0, or that of a trial which a signal stopped.

    Raises:
        UserError: If the options are wrong, or if the sweep was started with others.
    """
    check_runs_folder(sweep.runs)
    check_run_name(sweep.name)
    for at, parameter in enumerate(sweep.parameters):
        for value in parameter.extremes():
            others = [f"--{each.name}={each.extremes()[0]}" for each in sweep.parameters[:at]]
            check_options("fit", [*sweep.options, *others, f"--{parameter.name}={value}"])
    study = open_study(sweep)
    while True:
        with next_trial(study, sweep) as trial:
            if trial is None:
                break
            if code := run_trial(trial, sweep):
                CONSOLE.say(f"sweep: stopped in trial {trial.number + 1}; the same command goes on there")
                return code
        gc.collect()  # network and images of the trial
    report(study, sweep)
    return 0


def open_study(sweep: Sweep) -> optuna.Study:
    """Open the study of a sweep in its folder, or make it.

    Raises:
        UserError: If the sweep was started with other settings or options.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    path = str((sweep.folder / JOURNAL).absolute())
    drop_unfinished_line(Path(path))
    storage = JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    pruner = optuna.pruners.MedianPruner() if sweep.prune == "median" else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=storage, study_name="sweep", direction="maximize", load_if_exists=True, pruner=pruner
    )
    asked = {"parameters": [str(each) for each in sweep.parameters], "options": list(sweep.options)}
    for kind, value in asked.items():
        before = study.user_attrs.get(kind, value)
        if before != value:
            raise UserError(
                f"{sweep.folder} is a sweep with other {kind}: {_difference(before, value)}; give the same ones to go "
                "on, or another --name for a new sweep"
            )
        study.set_user_attr(kind, value)
    return study


def drop_unfinished_line(path: Path) -> None:
    """Cut off the line that a power cut has left unfinished at the end of a journal, which Optuna cannot read.

    Args:
        path: The journal, which need not exist.
    """
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


@contextlib.contextmanager
def next_trial(study: optuna.Study, sweep: Sweep) -> Iterator[Trial | None]:
    """Choose the next trial and lock it: one whose process is gone, else a new one; None if there are enough.

    The draws of a trial follow from its number, so a sweep that was stopped draws what it would have drawn.
    """
    for each in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with _lock(sweep, each.number) as free:
            if free and study.get_trials(deepcopy=False)[each.number].state == TrialState.RUNNING:
                study.sampler = optuna.samplers.TPESampler(seed=each.number)
                yield Trial(study, each._trial_id)
                return
    count = len(study.get_trials(deepcopy=False))
    if count >= sweep.trials:
        yield None
        return
    study.sampler = optuna.samplers.TPESampler(seed=count)
    trial = study.ask()
    with _lock(sweep, trial.number):
        yield trial


def run_trial(trial: Trial, sweep: Sweep) -> int:
    """Train a trial, or what is left of it, and tell the study its result.

    Args:
        trial: The trial.
        sweep: Its sweep.

    Returns:
        0, or the exit code of a run that a signal stopped.

    Raises:
        UserError: If no trial can be trained so, or if it validates nothing.
    """
    settings = trial_options(trial, sweep.parameters)
    folder = sweep.find_run(trial.number)
    options = [*sweep.options, *settings, f"--runs={sweep.runs}", f"--name={sweep.run_name(trial.number)}"]
    CONSOLE.say(f"\nsweep: trial {trial.number + 1} of {sweep.trials}, {' '.join(settings)}")
    try:
        with stopping.listening():
            arguments = options if folder is None else [f"--resume={folder}"]
            code = run_lightning("fit", arguments, {}, report=functools.partial(_report, trial, sweep))
    except Exception as error:
        if not isinstance(error, (UserError, TrainingFailed, OSError)) and not is_out_of_memory(error):
            raise
        trial.study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, UserError) and not _has_trained(trial.study):
            raise
        CONSOLE.say(f"sweep: trial {trial.number + 1} failed: {one_line(error)}")
        return 0
    if code > SIGNALLED:
        return code
    _tell(trial, sweep)
    return 0


def trial_options(trial: Trial | FrozenTrial, parameters: tuple[Parameter, ...]) -> list[str]:
    """Make the options of ``fit`` that a trial takes from its parameters; the settings of a new trial are drawn."""
    return [f"--{each.name}={each.suggest(trial)}" for each in parameters]


def report(study: optuna.Study, sweep: Sweep) -> None:
    """Print the best trials, and the command that repeats the best one."""
    trials = study.get_trials(deepcopy=False)
    done = [each for each in trials if each.state == TrialState.COMPLETE and each.value is not None]
    counts = ", ".join(
        f"{sum(each.state == state for each in trials)} {name}"
        for state, name in (
            (TrialState.COMPLETE, "complete"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
        )
    )
    CONSOLE.say(f"\nsweep: {len(trials)} trials, {counts}")
    ranked = sorted(done, key=lambda each: (-(each.value or 0.0), each.number))
    for each in ranked[:SHOWN]:
        settings = " ".join(trial_options(each, sweep.parameters))
        CONSOLE.say(f"  {each.value:.4f}  trial {each.number + 1}  {settings}")
    if ranked:
        imports = [f"--import={name}" for name in imported_parts()]
        again = ["vit-attn", "fit", *imports, *sweep.options, *trial_options(ranked[0], sweep.parameters)]
        CONSOLE.say(f"best run: {sweep.find_run(ranked[0].number)}")
        CONSOLE.say(f"repeat it: {shlex.join(again)}")
    CONSOLE.say(f"compare all: tensorboard --logdir {shlex.quote(str(sweep.folder))}, tab HParams")


def _report(trial: Trial, sweep: Sweep, step: int, accuracy: float) -> bool:
    """Report an accuracy once, under the number of its validation, and return whether the trial is pruned there."""
    steps: list[Any] = list(trial.user_attrs.get("steps", []))
    if step not in steps:  # a resumed run may repeat its last validation
        steps.append(step)
        trial.report(accuracy, len(steps))
        trial.set_user_attr("steps", steps)
    if sweep.prune == "none" or not trial.should_prune():
        return False
    trial.set_user_attr("pruned", True)
    return True


def _tell(trial: Trial, sweep: Sweep) -> None:
    study = trial.study
    accuracies = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if not accuracies:
        study.tell(trial, state=TrialState.FAIL)
        raise UserError(
            f"trial {trial.number + 1} validated nothing, and a sweep compares validation accuracies: leave out what "
            "turns validation off, such as trainer.limit_val_batches=0"
        )
    if trial.user_attrs.get("pruned"):
        study.tell(trial, state=TrialState.PRUNED)
        CONSOLE.say(f"sweep: trial {trial.number + 1} was pruned at validation {len(accuracies)}")
    else:
        best = max(accuracies.values())
        study.tell(trial, best)
        CONSOLE.say(f"sweep: trial {trial.number + 1} has {best:.4f}, the best so far is {study.best_value:.4f}")


def _has_trained(study: optuna.Study) -> bool:
    return any(each.intermediate_values for each in study.get_trials(deepcopy=False))


def _difference(before: list[str], after: list[str]) -> str:
    removed, added = ([each for each in one if each not in other] for one, other in ((before, after), (after, before)))
    return f"{' '.join(removed) or 'none'} there, {' '.join(added) or 'none'} here"


@contextlib.contextmanager
def _lock(sweep: Sweep, number: int) -> Iterator[bool]:
    """Lock a trial for this process, as long as it lives; yields whether it was free."""
    lock = FileLock(Path(sweep.runs, f"{sweep.run_name(number)}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
