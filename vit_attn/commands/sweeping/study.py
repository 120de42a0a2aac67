"""Study of a sweep: its settings, Optuna's journal, and the trial that is next."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from vit_attn.commands.run.folders import LAST_CHECKPOINT
from vit_attn.commands.sweeping.search_space import Parameter
from vit_attn.errors import UserError

JOURNAL = "sweep.journal"
"""File of Optuna's storage in the folder of a sweep."""


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


def trial_options(trial: Trial | FrozenTrial, parameters: tuple[Parameter, ...]) -> list[str]:
    """Make the options of ``fit`` that a trial takes from its parameters; the settings of a new trial are drawn."""
    return [f"--{each.name}={each.suggest(trial)}" for each in parameters]


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
