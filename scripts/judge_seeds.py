#!/usr/bin/env python
r"""Judge the maps of several networks that differ in their seed, and tabulate mean, lowest and highest of them.

Writes NAME.csv (a row a method and network), NAME_cuts.csv (a row a cut and network) into docs/measured, and the curves
of the first network to docs/images/NAME.png; docs/methods.md shows the tables.

    .venv/bin/python scripts/judge_seeds.py judge_coins --dataset coins \
        --arch_options embed_dim=64 depth=3 num_heads=4 mlp_ratio=2 --weights coins_*.safetensors
    .venv/bin/python scripts/judge_seeds.py judge_coins --table     # print the tables of what was measured
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from PIL import Image

from vit_attn.attention_maps.evaluation.report import MetricRow, judge_network
from vit_attn.checkpoints.weights import load_weights
from vit_attn.commands.judging import case_of, knockouts
from vit_attn.data import ImageData
from vit_attn.model.build import build_net
from vit_attn.plotting.curves import draw_curves

ROOT = Path(__file__).parent.parent
MEASURED, IMAGES = ROOT / "docs/measured", ROOT / "docs/images"
HEADINGS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "logit_1": "logit, top 1 cut ↓",
    "logit_8": "logit, top 8 cut ↓",
    "accuracy_1": "accuracy, top 1 cut ↓",
    "accuracy_8": "accuracy, top 8 cut ↓",
    "head_randomised": "new head",
    "all_randomised": "all new",
    "bought": "bought ↑",
    "any_coin": "any coin ↑",
    "buyer": "buyer",
}
CUT_HEADINGS = {"logit": "logit", "accuracy": "accuracy"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the results")
    parser.add_argument("--weights", nargs="+", default=[], help="one file a seed, in the order of the seeds")
    parser.add_argument("--arch", default="vit_attn_tiny_patch4_32")
    parser.add_argument("--arch_options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dataset", default="coins")
    parser.add_argument("--root", help="folder of the data set's files")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="judge nothing, print the tables of the results")
    return parser.parse_args()


def judge_all(args: argparse.Namespace) -> None:
    """Judge each network; rows are written as they are found."""
    options = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in args.arch_options)}
    data = ImageData(args.dataset, root=args.root, batch_size=1)
    data.prepare_data()
    methods, cuts = MEASURED / f"{args.name}.csv", MEASURED / f"{args.name}_cuts.csv"
    with methods.open("w", newline="") as method_file, cuts.open("w", newline="") as cut_file:
        method_rows, cut_rows = (csv.writer(file, lineterminator="\n") for file in (method_file, cut_file))
        method_rows.writerow(["method", "seed", *MetricRow._fields])
        cut_rows.writerow(["cut", "seed", *CUT_HEADINGS])
        for seed, weights in enumerate(args.weights):
            start = time.perf_counter()
            net = build_net(args.arch, data.num_classes, data.img_size, data.in_chans, options)
            load_weights(net, weights)
            verdict = judge_network(case_of(net.eval().to(args.device), data, args.images, args.device))
            for method, columns in verdict.methods.items():
                method_rows.writerow([method, seed, *means(columns)])
            for cut, change in knockouts(verdict).items():
                cut_rows.writerow([cut, seed, *means((change.logit, change.accuracy))])
            method_file.flush()
            cut_file.flush()
            if seed == 0:
                title = f"{args.dataset}, one network (seed 0), {args.images} validation images"
                Image.fromarray(draw_curves(verdict.curves, title)).save(IMAGES / f"{args.name}.png", optimize=True)
            seconds = time.perf_counter() - start
            print(f"{weights}: accuracy {verdict.accuracy:.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)


def means(columns: Sequence[torch.Tensor]) -> list[str]:
    values = [column.double().mean().item() for column in columns]
    return ["" if value != value else f"{value:.4f}" for value in values]


def method_table(name: str) -> str:
    """Markdown: the mean over the networks, and the lowest and highest of them."""
    return "\n".join(table(MEASURED / f"{name}.csv", "method", HEADINGS))


def cut_table(name: str) -> str:
    """The same of the edges; heads, which are other ones in every network, are left to the file."""
    return "\n".join(line for line in table(MEASURED / f"{name}_cuts.csv", "cut", CUT_HEADINGS) if "head" not in line)


def table(path: Path, key: str, headings: dict[str, str]) -> Iterator[str]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in headings if rows[0][name]]
    yield f"| {key} | {' | '.join(headings[name] for name in shown)} |"
    yield "|---" * (1 + len(shown)) + "|"
    for what in dict.fromkeys(row[key] for row in rows):
        of_it = [row for row in rows if row[key] == what]
        yield f"| {what} | {' | '.join(cell([float(row[name]) for row in of_it]) for name in shown)} |"


def cell(values: list[float]) -> str:
    digits = 1 if max(abs(value) for value in values) > 2 else 2
    three = (statistics.mean(values), min(values), max(values))
    mean, low, high = (f"{round(value, digits) + 0.0:.{digits}f}" for value in three)  # and no minus before a zero
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    args = parse_args()
    if not args.table:
        judge_all(args)
    print(method_table(args.name), cut_table(args.name), sep="\n\n")


if __name__ == "__main__":
    main()
