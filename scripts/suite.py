#!/usr/bin/env python
"""Measure all figures that need a GPU, in parts of under ten minutes, the cheapest and most telling first.

    scripts/gpu_suite OUT --data DATA                    # all parts that are not done for this commit and card
    scripts/gpu_suite OUT profile step --data DATA       # some
    scripts/gpu_suite --list                             # names, minutes and purposes of the parts
    scripts/gpu_suite OUT --write-docs                   # fill docs/results.md from the results of all days

A part is a list of cases. The figures of a case are written to OUT/PART.json as soon as they are measured, with
command, commit, versions, card and date. What is there for this commit and card is not measured again (but with
--again), so the same command goes on after a stop, on another day, and on another card. With --minutes, the first case
is begun, and others that would end in time. A case that fails stops no other. Runs are kept in OUT/runs and can be
removed; OUT/*.json is all that tables need.

A copy of the repository without .git names its commit in the variable GIT_COMMIT.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import example_images
import measured_with
import suite_docs
import training_runs
from suite_cases import Case, Suite
from suite_parts import PARTS


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("out", nargs="?", type=Path, help="folder of the results")
    add("parts", nargs="*", metavar="PART", help=f"parts, by default all: {', '.join(PARTS)}")
    add("--data", type=Path, help="folder with CIFAR-10; by default the variable VIT_ATTN_DATA")
    add(
        "--target", default="cifar100", metavar="DATASET", help="data set of the part finetune, or a folder of pictures"
    )
    add("--minutes", type=float, default=float("inf"), help="time for this call; later cases wait for the next")
    add("--again", action="store_true", help="measure anew what is done")
    add("--smoke", action="store_true", help="toy sizes on the CPU, by default with drawn shapes as data: only a test")
    add("--list", action="store_true", help="print the parts")
    add("--write-docs", action="store_true", help="measure nothing; fill the tables of docs/results.md")
    args = parser.parse_args(arguments)
    if not args.list and args.out is None:
        parser.error("a folder for the results is needed, such as measured")
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return args


def measure(suite: Suite, part: str, case: Case) -> None:
    """Measure a case and write its row, in place of an earlier one of this commit and card."""
    start = time.perf_counter()
    figures = case.measure()
    row = {"case": case.name, "command": case.command, **suite.context, **figures}
    row["minutes"] = round((time.perf_counter() - start) / 60, 2)
    rows = [each for each in read_rows(suite.out, part) if not is_of(each, case.name, suite.context)]
    partial = suite.out / f"{part}.json.partial"
    partial.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")
    partial.replace(suite.out / f"{part}.json")


def read_rows(out: Path, part: str) -> list[dict[str, object]]:
    """Rows of a part from all days."""
    path = out / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def is_of(row: dict[str, object], case: str, context: dict[str, str]) -> bool:
    """Test if a row is of a case, commit and card."""
    return row["case"] == case and all(row[name] == context[name] for name in ("commit", "device"))


def run(suite: Suite, parts: Iterable[str], minutes: float, again: bool) -> list[str]:
    """Measure the cases of parts that are not done, one at least, as long as there is time.

    Args:
        suite: Where and how.
        parts: Names of the parts.
        minutes: Time for all.
        again: Whether to measure what is done, too.

    Returns:
        Names of the cases that failed; the others go on.
    """
    deadline, begun, failed = time.monotonic() + minutes * 60, False, []
    for part, case in [(name, case) for name in parts for case in PARTS[name].cases(suite)]:
        name = f"{part}, {case.name}"
        if not again and any(is_of(row, case.name, suite.context) for row in read_rows(suite.out, part)):
            print(f"{name}: done", flush=True)
            continue
        if begun and time.monotonic() + case.minutes * 60 > deadline:
            print(f"{name}: about {case.minutes:g} min, not begun; the same command goes on", flush=True)
            continue  # a shorter one may fit
        print(f"{name}: about {case.minutes:g} min", flush=True)
        begun = True
        try:
            measure(suite, part, case)
        except (Exception, SystemExit) as error:  # time on a GPU is not lost for one case
            print(f"{name}: failed: {error}", flush=True)
            failed.append(name)
    return failed


def drawn(out: Path) -> Path:
    """Folder of drawn shapes for a smoke test."""
    if not (out / "shapes").exists():
        example_images.main([str(out / "shapes"), "--images=8", "--new=0"])
    return (out / "shapes" / "labelled").resolve()


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.list:
        for name, part in PARTS.items():
            print(f"{name:10} {part.minutes:4g} min  {part.purpose}")
        return
    if args.write_docs:
        suite_docs.write({name: read_rows(args.out, name) for name in PARTS})
        return
    data = drawn(args.out) if args.smoke and args.data is None else args.data
    suite = Suite(args.out.resolve(), data, args.target, args.smoke, measured_with.context())
    if not args.smoke and not suite.has_gpu:
        sys.exit("gpu_suite: no GPU is visible to torch; --smoke tries the suite at toy size on the CPU")
    suite.out.mkdir(parents=True, exist_ok=True)
    if failed := run(suite, args.parts or PARTS, args.minutes, args.again):
        sys.exit(f"gpu_suite: failed: {'; '.join(failed)}")


if __name__ == "__main__":
    training_runs.end_run_on_sigterm()
    main()
