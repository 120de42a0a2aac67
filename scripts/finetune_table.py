"""Table of ``scripts/bench_finetune.py``: accuracy by data set and way, from the stored runs."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs/measured/finetune"
TITLES = {
    "scratch": "from scratch",
    "head": "head alone (linear probe)",
    "last block": "last block and head",
    "full": "whole network",
}
"""Titles of the ways, in the order of the columns."""
Run = Mapping[str, Any]


def runs_of(results: Path) -> dict[str, dict[str, Any]]:
    """Stored results by the name of the data set."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}


def best_options(runs: Sequence[Run], way: str) -> dict[str, Any]:
    """Options of a way with the best validation accuracy with seed 0, of equal ones the first."""
    tried = [run for run in runs if run["way"] == way and run["seed"] == 0]
    return max(tried, key=lambda run: run["val"])["options"]


def test_accuracies(runs: Sequence[Run], way: str) -> list[float]:
    """Test accuracy of a way in per cent, by seed, with its best options."""
    if not any(run["way"] == way and run["seed"] == 0 for run in runs):
        return []
    chosen = best_options(runs, way)
    of_way = [run for run in runs if run["way"] == way and run["options"] == chosen]
    return [100 * run["test"] for run in sorted(of_way, key=lambda run: run["seed"])]


def finetune_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, and the lowest and the highest, of each data set and way."""
    measured = {run["way"] for stored in results.values() for run in stored["runs"]}
    ways = [way for way in TITLES if way in measured]
    lines = [f"| data set | {' | '.join(TITLES[way] for way in ways)} |", "|---" * (len(ways) + 1) + "|"]
    for name, stored in results.items():
        cells = [cell(test_accuracies(stored["runs"], way)) for way in ways]
        images = f"{name}, {stored['classes']} classes, {stored['labelled']} images each"
        lines.append(f"| {images} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readme_cell(results: Mapping[str, Mapping[str, Any]]) -> str:
    """README: mean accuracy of fine-tuning, the probe and training from scratch on each data set with all three."""
    parts = []
    for name, stored in results.items():
        if any(not test_accuracies(stored["runs"], way) for way in ("full", "head", "scratch")):
            continue
        full, head, scratch = (
            statistics.mean(test_accuracies(stored["runs"], way)) for way in ("full", "head", "scratch")
        )
        parts.append(f"{name} {full:.0f} %, {head:.0f} %, {scratch:.0f} %")
    return "; ".join(parts)


def cell(values: Sequence[float]) -> str:
    """Format the accuracies of several seeds.

    >>> cell([50.0, 51.0, 52.0])
    '51.0 ± 1.0 (50.0 to 52.0)'
    """
    if len(values) < 2:
        return f"{values[0]:.1f} (1 seed)" if values else "not measured yet"
    few = "" if len(values) > 2 else f", {len(values)} seeds"
    spread = f"{statistics.stdev(values):.1f} ({min(values):.1f} to {max(values):.1f}{few})"
    return f"{statistics.mean(values):.1f} ± {spread}"
