"""Trials of a sweep: runs of ``fit`` whose settings Optuna proposes and whose accuracies it compares."""

import functools
import gc
import shlex
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from vit_attn.commands.lightning import run_lightning
from vit_attn.commands.parsing.light_parser import check_options
from vit_attn.commands.parsing.own_data import names_own_data
from vit_attn.commands.run.name import check_run_name, check_runs_folder
from vit_attn.commands.sweeping.study import Sweep, next_trial, open_study, trial_options
from vit_attn.console import CONSOLE
from vit_attn.errors import TrainingFailed, UserError, is_out_of_memory, one_line
from vit_attn.parts import imported_parts
from vit_attn.training import stopping

SHOWN = 5
"""Trials that the report lists."""
SIGNALLED = 128
"""Exit codes above it are of runs that a signal stopped."""


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
    _check_extremes(sweep)
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


def _check_extremes(sweep: Sweep) -> None:
    """Check the ends of each range as options of ``fit``, but for those of the user's own data module."""
    if names_own_data(sweep.options):
        return
    for at, parameter in enumerate(sweep.parameters):
        for value in parameter.extremes():
            others = [f"--{each.name}={each.extremes()[0]}" for each in sweep.parameters[:at]]
            check_options("fit", [*sweep.options, *others, f"--{parameter.name}={value}"])


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
