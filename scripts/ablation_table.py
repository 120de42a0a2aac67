"""Table of an ablation: mean and spread of each arm, and its difference to the base with a standard error."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
COLUMNS = ("arm", "seeds", "accuracy", "range", "to base", "epochs", "training s", "images/s")
NOT_MEASURED = "not measured yet"


def difference(rows: Sequence[Row], base: Sequence[Row]) -> tuple[float, float | None]:
    """Mean difference of accuracy to the base, and its standard error; paired by seed where at least two are shared.

    >>> base = [{"seed": 0, "accuracy": 0.5}, {"seed": 1, "accuracy": 0.6}]
    >>> arm = [{"seed": 0, "accuracy": 0.7}, {"seed": 1, "accuracy": 0.8}]
    >>> mean, error = difference(arm, base)
    >>> round(mean, 3), round(error, 3)
    (0.2, 0.0)
    """
    ours, theirs = ({row["seed"]: row["accuracy"] for row in each} for each in (rows, base))
    if len(shared := ours.keys() & theirs.keys()) > 1:
        differences = [ours[seed] - theirs[seed] for seed in sorted(shared)]
        return statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(ours.values()) - statistics.mean(theirs.values())
    if min(len(ours), len(theirs)) < 2:
        return mean, None
    return mean, math.sqrt(sum(statistics.variance(each.values()) / len(each) for each in (ours, theirs)))


def table(results: Mapping[str, Any]) -> str:
    """Markdown table of the results, with their origin in the lines before it.

    Args:
        results: Content of ``results.json``.
    """
    rows: list[Row] = results["rows"]
    if not rows:
        return NOT_MEASURED
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    base = [row for row in rows if row["arm"] == "base"]
    lines = [f"`{results['command']}`: {results['metric']} after the last epoch; {origin(rows)}.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [_line(arm, [row for row in rows if row["arm"] == arm], base) for arm in arms]
    return "\n".join(lines)


def origin(rows: Sequence[Row]) -> str:
    """Commits, versions and devices that rows were measured with, each once."""
    return "; ".join(
        ", ".join(dict.fromkeys(str(row[name]) for row in rows)) for name in ("commit", "versions", "device")
    )


def _line(arm: str, rows: Sequence[Row], base: Sequence[Row]) -> str:
    accuracies = [row["accuracy"] for row in rows]
    deviation = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
    cells = [
        arm,
        ", ".join(str(row["seed"]) for row in rows),
        f"{statistics.mean(accuracies):.4f}{deviation}",
        f"{min(accuracies):.4f} to {max(accuracies):.4f}",
        "" if arm == "base" or not base else _difference(rows, base),
        mean(rows, "epochs", 0),
        mean(rows, "training_seconds", 1) or mean(rows, "seconds", 1),
        mean(rows, "images_per_second", 0),
    ]
    return f"| {' | '.join(cells)} |"


def _difference(rows: Sequence[Row], base: Sequence[Row]) -> str:
    value, error = difference(rows, base)
    return f"{value:+.4f}" + (f" ± {error:.4f}" if error is not None else "")


def mean(rows: Sequence[Row], name: str, digits: int) -> str:
    """Mean of a figure, empty where a row lacks it."""
    values = [row.get(name) for row in rows]
    known = [float(value) for value in values if value is not None]
    return f"{statistics.mean(known):,.{digits}f}" if known and len(known) == len(values) else ""


def write(out: Path, results: Mapping[str, Any]) -> None:
    """Write the results as JSON, CSV and Markdown; the JSON file is whole at any time.

    Args:
        out: Folder.
        results: Content of ``results.json``.
    """
    partial = out / "results.json.partial"
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / "results.json")
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(results["rows"][0]), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(results["rows"])
    (out / "table.md").write_text(table(results) + "\n", encoding="utf-8")
