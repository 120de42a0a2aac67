#!/usr/bin/env python
"""Print the seconds that runs took to reach each accuracy on the validation images.

The first validation that reaches an accuracy counts. *Seconds* are those since the start of the run with all that it
did, compilation and validations included; *training* are those of training steps alone, without compilation, which only
runs with an ``metrics.csv`` know.

    .venv/bin/python scripts/ladder.py runs/cifar10_cpu/20260101-120000-abcd --accuracies 0.5 0.6 0.7 0.75 0.8
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from training_runs import Epoch, read_epochs

NOT_REACHED = "not reached"


def rungs(epochs: Sequence[Epoch], accuracies: Sequence[float]) -> dict[float, Epoch | None]:
    """Find the first epoch that reaches each accuracy.

    >>> epochs = [Epoch(1, 10, 0.4, 20.0, None), Epoch(2, 20, 0.7, 41.0, None)]
    >>> [each and each.seconds for each in rungs(epochs, [0.5, 0.7, 0.8]).values()]
    [41.0, 41.0, None]
    """
    return {
        accuracy: next((each for each in epochs if each.accuracy is not None and each.accuracy >= accuracy), None)
        for accuracy in accuracies
    }


def cell(reached: Sequence[Epoch | None]) -> str:
    """Seconds of several runs: the mean, and the range; or that one of them did not get there."""
    if any(each is None for each in reached):
        return NOT_REACHED
    found = [each for each in reached if each is not None]
    text = spread([each.seconds for each in found])
    training = [each.training for each in found if each.training is not None]
    return f"{text}; training {spread(training)}" if len(training) == len(found) else text


def spread(values: Sequence[float]) -> str:
    """Mean of some seconds, with their range if there are several.

    >>> spread([9.96]), spread([100.0, 120.0])
    ('10.0', '110 (100 to 120)')
    """
    digits = 1 if max(values) < 100 else 0
    mean, low, high = (f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def table(runs: dict[str, list[list[Epoch]]], accuracies: Sequence[float]) -> str:
    """Markdown table with a row for each name and a column for each accuracy.

    Args:
        runs: Epochs of the runs of each name, such as those of several seeds.
        accuracies: Accuracies in [0, 1].
    """
    lines = [f"| run | {' | '.join(f'{each:g}' for each in accuracies)} | last |", "|---" * (len(accuracies) + 2) + "|"]
    for name, several in runs.items():
        found = [rungs(epochs, accuracies) for epochs in several]
        cells = [cell([each[accuracy] for each in found]) for accuracy in accuracies]
        last = statistics.mean(
            [next(each.accuracy for each in reversed(epochs) if each.accuracy is not None) for epochs in several]
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {last:.4f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs; those of one name are seeds"
    )
    parser.add_argument("--accuracies", nargs="+", type=float, default=[0.9, 0.92, 0.94, 0.95, 0.96])
    args = parser.parse_args(arguments)
    runs: dict[str, list[list[Epoch]]] = {}
    for run in args.runs:
        epochs = read_epochs(run) if run.is_dir() else []
        if all(each.accuracy is None for each in epochs):
            sys.exit(f"ladder: {run} has validated nothing: name the folder of a run that has")
        runs.setdefault(run.resolve().parent.name, []).append(epochs)
    print(table(runs, args.accuracies))


if __name__ == "__main__":
    main()
