#!/usr/bin/env python
r"""Evaluate the maps of several networks that differ in their seed, and tabulate mean, lowest and highest of them.

Writes NAME.csv (a row per method and network) and NAME_knockouts.csv (a row per knock-out and network) into
docs/measured, and the curves of the first network to docs/images/NAME.png; docs/methods.md shows the tables.

    .venv/bin/python scripts/judge_seeds.py judge_coins --dataset coins \
        --arch_options embed_dim=64 depth=3 num_heads=4 mlp_ratio=2 --weights coins_*.safetensors
    .venv/bin/python scripts/judge_seeds.py judge_coins --table     # print the tables of what was measured
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from PIL import Image

from vit_attn.attention_maps.evaluation.report import judge_network, mean_and_error
from vit_attn.checkpoints.weights import load_weights
from vit_attn.commands.judge_images import eval_batch_of
from vit_attn.data import ImageData
from vit_attn.model.build import build_net
from vit_attn.plotting.curves import draw_curves
from vit_attn.reports.faithfulness import knockouts

ROOT = Path(__file__).parent.parent
MEASURED, IMAGES = ROOT / "docs/measured", ROOT / "docs/images"
HEADINGS = {
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
    "logit_1": "logit, top 1 knocked out ↓",
    "logit_8": "logit, top 8 knocked out ↓",
    "accuracy_1": "accuracy, top 1 knocked out ↓",
    "accuracy_8": "accuracy, top 8 knocked out ↓",
    "head_randomised": "new head",
    "all_randomised": "all new",
    "bought": "bought ↑",
    "any_coin": "any coin ↑",
    "buyer": "buyer",
}
KNOCKOUT_HEADINGS = {"logit": "logit", "accuracy": "accuracy"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the results")
    parser.add_argument("--weights", nargs="+", default=[], help="one file per seed, in the order of the seeds")
    parser.add_argument("--arch", default="vit_attn_tiny_patch4_32")
    parser.add_argument("--arch_options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dataset", default="coins")
    parser.add_argument("--root", help="folder of the data set's files")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="only print the tables of the results")
    return parser.parse_args()


def judge_all(args: argparse.Namespace) -> None:
    """Evaluate each network, and write its rows at once."""
    options = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in args.arch_options)}
    data = ImageData(args.dataset, root=args.root, batch_size=1)
    data.prepare_data()
    methods, others = MEASURED / f"{args.name}.csv", MEASURED / f"{args.name}_knockouts.csv"
    with methods.open("w", newline="") as method_file, others.open("w", newline="") as knockout_file:
        method_rows, knockout_rows = (csv.writer(file, lineterminator="\n") for file in (method_file, knockout_file))
        knockout_rows.writerow(["knockout", "seed", *KNOCKOUT_HEADINGS])
        for seed, weights in enumerate(args.weights):
            start = time.perf_counter()
            net = build_net(args.arch, data.num_classes, data.img_size, data.in_chans, options)
            load_weights(net, weights)
            report = judge_network(eval_batch_of(net.eval().to(args.device), data, args.images, args.device))
            for number, (method, row) in enumerate(report.methods.items()):
                if seed == number == 0:
                    method_rows.writerow(["method", "seed", *row.columns()])
                method_rows.writerow([method, seed, *means(row.columns())])
            for name, effect in knockouts(report).items():
                knockout_rows.writerow([name, seed, *means({"logit": effect.logit, "accuracy": effect.accuracy})])
            method_file.flush()
            knockout_file.flush()
            if seed == 0:
                title = f"{args.dataset}, one network (seed 0), {args.images} validation images"
                Image.fromarray(draw_curves(report.curves, title, margins=report.curve_margins)).save(
                    IMAGES / f"{args.name}.png", optimize=True
                )
            seconds = time.perf_counter() - start
            print(f"{weights}: accuracy {report.accuracy:.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)


def means(columns: Mapping[str, torch.Tensor]) -> list[str]:
    values = [mean_and_error(column)[0] for column in columns.values()]
    return ["" if value != value else f"{value:.4f}" for value in values]


def method_table(name: str) -> str:
    """Markdown table of the mean over the networks, and the lowest and highest of them."""
    return "\n".join(table(MEASURED / f"{name}.csv", "method", HEADINGS))


def knockout_table(name: str) -> str:
    """Markdown table of the edges; heads, which differ from network to network, are left to the file."""
    lines = table(MEASURED / f"{name}_knockouts.csv", "knockout", KNOCKOUT_HEADINGS)
    return "\n".join(line for line in lines if "head" not in line)


def table(path: Path, key: str, headings: dict[str, str]) -> Iterator[str]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in headings if rows[0].get(name)]
    yield f"| {key} | {' | '.join(headings[name] for name in shown)} |"
    yield "|---" * (1 + len(shown)) + "|"
    for label in dict.fromkeys(row[key] for row in rows):
        chosen = [row for row in rows if row[key] == label]
        yield f"| {label} | {' | '.join(cell([float(row[name]) for row in chosen]) for name in shown)} |"


def cell(values: list[float]) -> str:
    digits = 1 if max(abs(value) for value in values) > 2 else 2
    three = (statistics.mean(values), min(values), max(values))
    mean, low, high = (f"{round(value, digits) + 0.0:.{digits}f}" for value in three)  # and no minus before a zero
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    args = parse_args()
    if not args.table:
        judge_all(args)
    print(method_table(args.name), knockout_table(args.name), sep="\n\n")


if __name__ == "__main__":
    main()
