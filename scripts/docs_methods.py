#!/usr/bin/env python
"""Print the summary table of docs/methods.md from the measured files; a test compares the two.

.venv/bin/python scripts/docs_methods.py
"""

import csv
import statistics
from pathlib import Path

MEASURED = Path(__file__).parent.parent / "docs/measured"
HEAD = (
    "| method | points at the answer, `coins` ↑ | logit, top 8 knocked out, CIFAR-10 ↓ | verdict |\n|---|---|---|---|"
)
VERDICTS = {
    "relevance": "**the default**: best on CIFAR-10 by every measure, among the best on `coins`",
    "gradient rollout": "like relevance on `coins`; second by knock-out on CIFAR-10",
    "LeGrad": "a little better than centre first on CIFAR-10; depends on the seed on `coins`",
    "last layer": "shows the patch that was read last, not those read before it",
    "rollout, mean": "shows all patches of the answer on `coins`; worse than centre first on CIFAR-10",
    "rollout, discard 0.5": "changes next to nothing over rollout, mean",
    "rollout, max": "do not trust: points at the buyer, not at the answer",
    "rollout, min": "do not trust: depends on the seed",
    "random": "content-free baseline",
    "centre first": "content-free baseline",
}


def means(path: Path, column: str) -> dict[str, float]:
    """Mean of a column over the networks, by method."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    methods = dict.fromkeys(row["method"] for row in rows)
    return {name: statistics.mean(float(row[column]) for row in rows if row["method"] == name) for name in methods}


def summary_table() -> str:
    """Markdown table of one measure a data set and a verdict, by method."""
    pointing = means(MEASURED / "judge_coins.csv", "bought")
    knockout = means(MEASURED / "judge_cifar10.csv", "logit_8")
    if missing := set(VERDICTS) ^ set(pointing):
        raise SystemExit(f"methods without a measurement or a verdict: {', '.join(sorted(missing))}")
    lines = [f"| {name} | {pointing[name]:.2f} | {knockout[name]:.2f} | {text} |" for name, text in VERDICTS.items()]
    return "\n".join([HEAD, *lines])


if __name__ == "__main__":
    print(summary_table())
