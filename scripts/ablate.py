#!/usr/bin/env python
r"""Measure what each part of a configuration is worth: train variants of it with several seeds, and tabulate them.

An arm is the base with other options: --vary makes one for each value, --arm one of several options. Each arm and seed
is trained by `vit-attn fit` in a process of its own, one at a time. What is finished stays in OUT/results.json, so the
same command goes on after a stop; a run that was interrupted begins again. Accuracy is that of the last epoch on the
validation images. The test images are used with --final only, which trains on all training images, without validation,
and tests the last epoch once: for a configuration that is chosen, not for choosing one.

    .venv/bin/python scripts/ablate.py configs/cifar10_94.yaml --vary model.lr=1e-2,3e-2 \
        --arm "no whitening: model.whiten=0" --seeds 0-4 --out measured/94 -- --data.root=DATA
    .venv/bin/python scripts/ablate.py configs/cifar10_94.yaml --arms configs/ablations/94.yaml --out measured/94

With --time-budget SECONDS, arms are compared at equal training time instead of equal epochs: a first run of two epochs
measures the seconds of one, and as many as fit are trained. Validation, start and compilation do not count.

Writes OUT/table.md and OUT/results.csv after each run. Options after -- go to every `fit`.
"""

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ablation_table
import measured_with
import training_runs
import yaml

METRIC = "val/accuracy"


@dataclass(frozen=True)
class Arm:
    """A variant of the base.

    Args:
        name: Its name in the table.
        options: Options of ``fit`` by name, without dashes.
    """

    name: str
    options: dict[str, str]

    def arguments(self) -> list[str]:
        """Options for the command line."""
        return [f"--{key}={value}" for key, value in self.options.items()]


BASE = Arm("base", {})


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, extra = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("base", type=Path, help="configuration file")
    add("--vary", action="append", default=[], metavar="KEY=A,B", help="an arm for each value of an option")
    add("--arm", action="append", default=[], metavar="'NAME: KEY=VALUE …'", help="an arm of several options")
    add("--arms", type=Path, metavar="FILE", help="YAML file of arms: options by the name of the arm")
    add("--seeds", type=seeds, default=[0, 1, 2], help="such as 0-4 or 0,3 (default: 0-2)")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--time-budget", type=float, metavar="SECONDS", help="training seconds of each run, instead of epochs")
    add("--final", action="store_true", help="train on all training images and test once")
    args = parser.parse_args(own)
    args.extra = extra
    return args


def seeds(text: str) -> list[int]:
    """Seeds of a list and ranges.

    >>> seeds("0-2,7")
    [0, 1, 2, 7]
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def arms_of(args: argparse.Namespace) -> list[Arm]:
    """The base and its variants, in the order in which they were given.

    Raises:
        SystemExit: If two have one name.
    """
    arms = [BASE]
    if args.arms:
        listed = yaml.safe_load(args.arms.read_text(encoding="utf-8"))
        arms += [Arm(name, {key: _text(value) for key, value in options.items()}) for name, options in listed.items()]
    for varied in args.vary:
        key, _, values = varied.partition("=")
        arms += [Arm(f"{key}={value}", {key: value}) for value in values.split(",")]
    for text in args.arm:
        name, _, options = text.partition(":")
        arms.append(Arm(name.strip(), dict(_pair(each) for each in shlex.split(options))))
    if double := {arm.name for arm in arms if sum(arm.name == other.name for other in arms) > 1}:
        raise SystemExit(f"ablate: two arms have the name {', '.join(sorted(double))}")
    return arms


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise SystemExit(f"ablate: an arm is 'NAME: KEY=VALUE …', got {text!r}")
    return key, value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def open_results(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Results in a folder so far; a folder of other settings is refused.

    Args:
        out: The folder.
        settings: All that the results depend on, but arms and seeds, of which there may be more later.

    Raises:
        SystemExit: If the folder has results of other settings.
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = out / "results.json"
    if not path.is_file():
        return {"settings_hash": key, "settings": settings, "rows": []}
    results = json.loads(path.read_text(encoding="utf-8"))
    if results["settings_hash"] != key:
        changed = [name for name in settings if results["settings"].get(name) != settings[name]]
        raise SystemExit(f"ablate: {out} has results of other settings ({', '.join(changed)}): choose another --out")
    return results


def epochs_within(budget: float, common: Sequence[str], arm: Arm, runs: Path) -> int:
    """Number of epochs whose training fits a time, by a run of two epochs.

    Args:
        budget: Seconds of training.
        common: Options of all arms.
        arm: The arm.
        runs: Folder of the runs.
    """
    first, second = training_runs.fit(
        [*common, *arm.arguments(), "--trainer.max_epochs=2", "--data.augment.mix_until=1"], runs, "probe"
    ).epochs
    per_epoch = second.training / 2 if second.training else second.seconds - first.seconds
    return max(1, int(budget / per_epoch))


def measure(arm: Arm, seed: int, args: argparse.Namespace, epochs: int | None) -> dict[str, Any]:
    """Train an arm with a seed; its figures."""
    options = [*common_options(args), *arm.arguments(), f"--seed_everything={seed}"]
    if epochs is not None:
        options.append(f"--trainer.max_epochs={epochs}")
    if args.final:
        options += training_runs.FINAL
    run = training_runs.fit(options, args.out / "runs", f"{_file_name(arm.name)}-{seed}")
    row: dict[str, Any] = {"arm": arm.name, "seed": seed, "options": shlex.join(arm.arguments()), **run.row()}
    if args.final:
        row["accuracy"] = training_runs.tested_accuracy(run)
    elif run.accuracy is None:
        raise SystemExit(f"ablate: {run.folder} logged no {METRIC}: trainer.limit_val_batches must not be 0")
    return row


def common_options(args: argparse.Namespace) -> list[str]:
    return ["-c", str(args.base), "--attention.num_images=0", *args.extra]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    arms = arms_of(args)
    settings: dict[str, Any] = {
        "base": yaml.safe_load(args.base.read_text(encoding="utf-8")),
        "options": args.extra,
        "time budget": args.time_budget,
        "final": args.final,
    }
    results = open_results(args.out, settings)
    results["metric"] = "test accuracy" if args.final else METRIC
    results["command"] = shlex.join(["scripts/ablate.py", *(sys.argv[1:] if arguments is None else arguments)])
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:  # all arms of a seed first, so that the table of few seeds is whole
        for arm in arms:
            add_row(results, arm, seed, args)
    print(ablation_table.table(results))


def add_row(results: dict[str, Any], arm: Arm, seed: int, args: argparse.Namespace) -> None:
    """Measure an arm with a seed, unless that is done, and write the results."""
    rows = results["rows"]
    known = [row for row in rows if row["arm"] == arm.name]
    if any(row["options"] != shlex.join(arm.arguments()) for row in known):
        raise SystemExit(f"ablate: {args.out} has an arm {arm.name!r} of other options: give this one another name")
    if any(row["seed"] == seed for row in known):
        return
    epochs = None
    if args.time_budget:
        epochs = (
            known[0]["epochs"]
            if known
            else epochs_within(args.time_budget, common_options(args), arm, args.out / "runs")
        )
    rows.append(measure(arm, seed, args, epochs) | measured_with.context())
    ablation_table.write(args.out, results)
    print(f"{arm.name}, seed {seed}: {rows[-1]['accuracy']:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    training_runs.end_run_on_sigterm()
    main()
