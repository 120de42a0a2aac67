#!/usr/bin/env python
r"""Print the tables of docs/methods.md from the measured files; tests compare the two.

    .venv/bin/python scripts/docs_methods.py                # the summary of the networks of several seeds
    .venv/bin/python scripts/docs_methods.py judge_NAME     # the table of one network, which was judged before

Judge one network, keep its results in docs/measured/judge_NAME and docs/images/judge_NAME.png, and write its table into
docs/methods.md, between the lines ``<!-- judge_NAME: begin -->`` and ``<!-- judge_NAME: end -->``, at its end if they
are missing; the options are those of ``vit-attn judge``:

    .venv/bin/python scripts/docs_methods.py judge_NAME --model runs/NAME/RUN --num_images 256
"""

import csv
import shutil
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MEASURED, IMAGES, DOC = ROOT / "docs/measured", ROOT / "docs/images", ROOT / "docs/methods.md"
COLUMNS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "logit_8": "logit, top 8 knocked out ↓",
    "accuracy_8": "accuracy, top 8 knocked out ↓",
    "head_randomised": "new head",
    "all_randomised": "all new",
    "bought": "bought ↑",
    "any_coin": "any coin ↑",
    "buyer": "buyer",
}
"""Columns of the table of one network, where they were measured."""
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


def network_table(folder: Path) -> str:
    """Markdown table of one network: means ± half of their 95 % intervals; bold where no method is measurably better.

    Args:
        folder: Results of ``vit-attn judge``.
    """
    methods, compared = read(folder / "methods.csv"), read(folder / "comparisons.csv")
    bold = {(row["method"], row["measure"]) for row in compared if row["than_best"] != "worse"}
    shown = [name for name in COLUMNS if methods[0].get(name)]
    lines = [f"| method | {' | '.join(COLUMNS[name] for name in shown)} |", "|---" * (1 + len(shown)) + "|"]
    for row in methods:
        cells = [f"**{cell(row, name)}**" if (row["method"], name) in bold else cell(row, name) for name in shown]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: dict[str, str], name: str) -> str:
    """Mean and half of its interval."""
    mean, low, high = (float(row[f"{name}{part}"]) for part in ("", "_low", "_high"))
    digits = 1 if abs(mean) >= 2 else 2
    return f"{round(mean, digits) + 0.0:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_table(text: str, name: str, table: str) -> str:
    """Text of the page with the table of a network between its marks, which are added at the end if it has none."""
    begin, end = (f"<!-- {name}: {part} -->" for part in ("begin", "end"))
    if begin not in text:
        text += f"\n## One network: {name.removeprefix('judge_')}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


def judge(name: str, options: list[str]) -> None:
    """Judge a network and put its results into the documentation."""
    from vit_attn.cli import main  # only here, since it needs the package's own environment

    folder = MEASURED / name
    if code := main(["judge", *options, f"--output={folder}"]):
        raise SystemExit(code)
    shutil.move(folder / "curves.png", IMAGES / f"{name}.png")
    DOC.write_text(with_table(DOC.read_text(encoding="utf-8"), name, network_table(folder)), encoding="utf-8")


if __name__ == "__main__":
    given, *others = sys.argv[1:] or [""]
    if others:
        judge(given, others)
    print(network_table(MEASURED / given) if given else summary_table())
