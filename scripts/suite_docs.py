"""Tables of docs/results.md from the results of the GPU suite.

A figure has its card, commit, versions and date beside it, or "not measured yet" in its place. The rows that the tables
show are kept in docs/measured/gpu.json, so that they can be made again without the folder of the results.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from training_runs import ROOT

PAGE, MEASURED = ROOT / "docs/results.md", ROOT / "docs/measured/gpu.json"
NOT_MEASURED = "not measured yet"
TARGETS = (0.9, 0.92, 0.94, 0.95, 0.96)
Rows = Sequence[Mapping[str, Any]]


def write(results: Mapping[str, Rows]) -> None:
    """Merge results into docs/measured/gpu.json, and fill the tables of docs/results.md.

    Args:
        results: Rows of each part.
    """
    known = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    merged = {part: merge(known.get(part, []), rows) for part, rows in {**known, **results}.items()}
    text = json.dumps({part: rows for part, rows in merged.items() if rows}, indent=1)
    MEASURED.write_text(text + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), merged), encoding="utf-8")


def merge(known: Rows, new: Rows) -> list[Mapping[str, Any]]:
    """Rows of both, the newer of each case and card."""
    rows = {(row["case"], row["device"]): row for row in known}
    rows |= {(row["case"], row["device"]): row for row in new}
    return list(rows.values())


def filled(text: str, results: Mapping[str, Rows]) -> str:
    """The page with its tables made from results.

    Args:
        text: The page, with ``<!-- results: NAME -->`` and ``<!-- end -->`` around each table.
        results: Rows of each part.
    """
    for name, table in TABLES.items():
        start = f"<!-- results: {name} -->\n"
        before, found, rest = text.partition(start)
        if not found:
            raise SystemExit(f"{PAGE} has no {start.strip()}")
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}{start}\n{table(results)}\n\n{end}{after}"
    return text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def origin(rows: Rows) -> str:
    """Card, commit, versions and dates of rows, each once."""
    names = ("device", "commit", "versions", "date")
    return "; ".join(", ".join(dict.fromkeys(str(row[name]) for row in rows)) for name in names)


def by_device(rows: Rows) -> dict[str, Rows]:
    """Rows of each device, since figures of two cards are never mixed."""
    return {
        device: [row for row in rows if row["device"] == device] for device in dict.fromkeys(r["device"] for r in rows)
    }


def records(results: Mapping[str, Rows]) -> str:
    """Final runs: mean and spread over the seeds."""
    head = ("configuration", "seeds", "test accuracy", "training s", "process s", "measured with")
    lines = []
    for part, config in {"seeds": "cifar10_94", "seeds96": "cifar10_96", "seedsbest": "cifar10_best"}.items():
        told = f"`configs/{config}.yaml`"
        for rows in by_device(results.get(part, ())).values():
            seeds = ", ".join(row["case"].rpartition(" ")[2] for row in rows)
            lines.append(
                (told, seeds, spread(rows, "test_accuracy", 4), spread(rows, "training_seconds", 1),
                 spread(rows, "process_seconds", 1), origin(rows))
            )  # fmt: skip
        if not results.get(part):
            lines.append((told, "", NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, ""))
    return markdown(head, lines)


def spread(rows: Rows, name: str, digits: int) -> str:
    """Mean, standard deviation and range of a figure."""
    values = [row[name] for row in rows if row.get(name) is not None]
    if not values:
        return NOT_MEASURED
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ladder(results: Mapping[str, Rows]) -> str:
    """The shortest run whose last epoch reaches each accuracy."""
    rows = [*results.get("ladder", ()), *results.get("ladder96", ()), *results.get("best", ())]
    lines = []
    for device, measured in by_device(rows).items():
        for target in TARGETS:
            reached = [row for row in measured if (row["accuracy"] or 0) >= target]
            first = min(reached, key=lambda row: row["process_seconds"], default=None)
            figures = ("not reached", "", "", "", device)
            if first is not None:
                figures = (first["case"], f"{first['accuracy']:.4f}", number(first, "training_seconds", 1),
                           number(first, "process_seconds", 1), origin([first]))  # fmt: skip
            lines.append((f"{target:.0%}".replace("%", " %"), *figures))
    lines = lines or [(f"{target:.0%}".replace("%", " %"), *[NOT_MEASURED] * 4, "") for target in TARGETS]
    return markdown(("accuracy", "run", "reached", "training s", "process s", "measured with"), lines)


def number(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A figure, or that it was not measured."""
    value = row.get(name)
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def steps(results: Mapping[str, Rows]) -> str:
    """Ratios of steps."""
    rows = results.get("step", ())
    cases = ["over timm's, batch 256", "over timm's, batch 1024", "over timm's, batch 2048"]
    lines = [
        (row["case"], f"{row['ratio']:.3f}" + _quartiles(row), f"`{row['command']}`", origin([row])) for row in rows
    ]
    missing = [name for name in [*cases, "Lightning's loop over a bare loop"] if name not in {r["case"] for r in rows}]
    lines += [(name, NOT_MEASURED, "", "") for name in missing]
    return markdown(("step", "ratio", "command", "measured with"), lines)


def _quartiles(row: Mapping[str, Any]) -> str:
    return f" ({row['ratio_low']:.3f}, {row['ratio_high']:.3f})" if "ratio_low" in row else ""


def profiles(results: Mapping[str, Rows]) -> str:
    """Milliseconds, kernels and waits of a step."""
    rows = results.get("profile", ())
    columns = {"step_ms": 2, "device_busy_ms": 2, "kernels_per_step": 0, "waits_per_step": 2}
    lines = [
        (row["case"], *(number(row, name, digits) for name, digits in columns.items()), _parts(row), origin([row]))
        for row in rows
    ]
    names = ("cifar10, eager", "cifar10, compiled", "cifar10, CUDA graphs", "cifar10_94")
    lines += [(name, *[NOT_MEASURED] * 5, "") for name in names if name not in {row["case"] for row in rows}]
    head = ("step", "ms", "device busy, ms", "kernels", "waits", "parts, ms: host / with the device", "measured with")
    return markdown(head, lines)


def _parts(row: Mapping[str, Any]) -> str:
    parts = row["parts_ms"].items()
    return "; ".join(f"{name} {part['host']:.1f} / {part['total']:.1f}" for name, part in parts)


def runs(part: str, names: Sequence[str], results: Mapping[str, Rows]) -> str:
    """Accuracy and time of the runs of a part."""
    rows = results.get(part, ())
    lines = [
        (row["case"], number(row, "accuracy", 4), number(row, "training_seconds", 1),
         number(row, "process_seconds", 1), number(row, "images_per_second", 0), origin([row]))
        for row in rows
    ]  # fmt: skip
    lines += [(name, *[NOT_MEASURED] * 4, "") for name in names if name not in {row["case"] for row in rows}]
    return markdown(("run", "validation", "training s", "process s", "images/s", "measured with"), lines)


TABLES = {
    "records": records,
    "ladder": ladder,
    "steps": steps,
    "profile": profiles,
    "sweep": lambda results: runs(
        "sweep", [f"lr {rate:g}" for rate in (5e-3, 1e-2, 1.5e-2, 2e-2, 3e-2, 4e-2)], results
    ),
    "best": lambda results: runs("best", ["within 8 min"], results),
    "finetune": lambda results: runs("finetune", ["full", "head", "scratch"], results),
    "logging": lambda results: runs("logging", ["neither", "checkpoints", "attention of 16 images"], results),
}
