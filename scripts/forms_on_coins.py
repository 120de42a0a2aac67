#!/usr/bin/env python
"""Train the quickstart's network in every form of attention, five seeds each, and tabulate how well it looks.

Each run is configs/quickstart.yaml with one detail changed. Beside the accuracy on the validation images stands
*pointing*: the share of images whose top patch, in the row that the network pools, is the bought coin (chance 1/64), or
any of the four coins (4/64); by attention rollout, and by the last layer (or pool) alone. Runs that the results file
already has are not repeated.

    .venv/bin/python scripts/forms_on_coins.py                      # about two minutes a run on two cores
    .venv/bin/python scripts/forms_on_coins.py --device cuda --jobs 6
    .venv/bin/python scripts/forms_on_coins.py --table              # print the table of what was measured
"""

import argparse
import csv
import logging
import multiprocessing
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor, nn

from vit_attn.attention_maps import raw_rows, record, rollout
from vit_attn.checkpoints.weights import save_weights
from vit_attn.data import ImageData
from vit_attn.model.scores import AFFINITIES, Scores
from vit_attn.task import Classifier

ROOT = Path(__file__).parent.parent
FORMS: dict[str, dict[str, Any]] = {
    "the default": {},
    "affinity: dot product": {"affinity": "dot_product"},
    "affinity: cosine": {"affinity": "cosine"},
    "affinity: gaussian": {"affinity": "gaussian"},
    "affinity: additive": {"affinity": "additive"},
    "normaliser: top 8": {"normaliser": "top_k", "top_k": 8},
    "normaliser: hard": {"normaliser": "hard"},
    "scope: window of 3": {"window": 3},
    "source: cross (pool by a learned query)": {"global_pool": "map", "class_token": False},
    "no query at all (mean over patches)": {"global_pool": "avg", "class_token": False},
    "heads: one": {"num_heads": 1},
    "positions: none": {"pos_embed": "none"},
    "positions: sine and cosine": {"pos_embed": "sincos"},
    "positions: rotary": {"pos_embed": "rope"},
    "control: mean instead of attention": {"affinity": "uniform"},
}
FIELDS = ("form", "seed", "accuracy", "rollout_bought", "rollout_any", "raw_bought", "raw_any", "seconds", "machine")

SPACE, TO = "\N{NO-BREAK SPACE}", "\N{EN DASH}\N{WORD JOINER}"
"""So that a cell stays on one line."""


class Uniform(nn.Module):
    """The same score for every key: what is left of attention is the mean over all tokens."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()

    def forward(self, q: Tensor, k: Tensor) -> Scores:
        """Nobody is asked, all give alike."""
        return Scores(torch.zeros_like(q), torch.zeros_like(k), 1.0)


AFFINITIES["uniform"] = Uniform


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/measured/forms_on_coins.csv")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--weights", type=Path, help="folder for the weights of the default's networks")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of the results file")
    return parser.parse_args()


def run(job: tuple[str, int, str, Path | None]) -> dict[str, Any]:
    """Train one network and measure it."""
    form, seed, device, weights = job
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    settings = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    L.seed_everything(seed, verbose=False)
    data = ImageData(**settings["data"], seed=seed)
    options = settings["model"].pop("arch_options") | FORMS[form]
    task = Classifier(**settings["model"], arch_options=options, num_classes=data.num_classes, img_size=data.img_size)
    trainer = L.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=settings["trainer"]["max_epochs"],
        limit_train_batches=settings["trainer"]["limit_train_batches"],
        gradient_clip_val=1.0,  # as the command line has it
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    start = time.perf_counter()
    trainer.fit(task, data)
    seconds = time.perf_counter() - start
    if weights is not None and form == "the default":
        weights.mkdir(parents=True, exist_ok=True)
        save_weights(task.net, weights / f"coins_{seed}.safetensors")
    measured = measure(task.net.to(device).eval(), data, device)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return {
        "form": form,
        "seed": seed,
        **{name: f"{value:.4f}" for name, value in measured.items()},
        "seconds": f"{seconds:.0f}",
        "machine": f"{where}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def measure(net: nn.Module, data: ImageData, device: str) -> dict[str, float]:
    """Accuracy and pointing over the validation images."""
    split, correct = data.splits["val"], []
    truth: Any = split.ground_truth
    bought = torch.tensor([truth(i).regions["bought"][0] for i in range(len(split))])
    coins = torch.tensor([truth(i).regions["any_coin"] for i in range(len(split))])
    top: dict[str, list[Tensor]] = {"rollout": [], "raw": []}
    for images, labels in zip(split.decoded().split(250), split.labels.split(250), strict=True):
        with torch.no_grad(), record(net) as recording:
            correct.append(net(data.normalize(images.to(device))).argmax(dim=-1).cpu() == labels)
        raw = raw_rows(recording) if recording.pool is None else recording.query_rows()
        for name, rows in (("rollout", rollout(recording)), ("raw", raw)):
            top[name].append(rows[:, 0, recording.num_prefix_tokens :].argmax(dim=-1).cpu())
    result = {"accuracy": torch.cat(correct).double().mean().item()}
    for name, parts in top.items():
        patch = torch.cat(parts)
        result[f"{name}_bought"] = (patch == bought).double().mean().item()
        result[f"{name}_any"] = (patch[:, None] == coins).any(dim=1).double().mean().item()
    return result


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """Markdown, in per cent: the mean over the seeds, and the lowest and highest of them."""

    def cell(name: str, of_form: list[dict[str, str]]) -> str:
        values = [100 * float(row[name]) for row in of_form]
        return f"{statistics.mean(values):.0f}{SPACE}({min(values):.0f}{TO}{max(values):.0f})"

    lines = [
        "| form | accuracy | rollout: bought | rollout: any | last: bought | last: any |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    counts = []
    for form in FORMS:
        if of_form := [row for row in rows if row["form"] == form]:
            counts.append(len(of_form))
            lines.append(f"| {form} | {' | '.join(cell(name, of_form) for name in FIELDS[2:7])} |")
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "no"
    lines += ["", f"Per cent: mean (lowest{TO}highest) of {seeds} seeds. *Any* is any of the four coins,"]
    lines += ["*last* the last layer, or the pool where attention pools."]
    lines += [f"Measured on {machine}." for machine in sorted({row["machine"] for row in rows})]
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    if not args.table:
        done = {(row["form"], int(row["seed"])) for row in read(args.results)}
        jobs = [(form, seed) for seed in range(args.seeds) for form in FORMS if (form, seed) not in done]
        args.results.parent.mkdir(parents=True, exist_ok=True)
        fresh = not args.results.is_file()
        with (
            args.results.open("a", newline="") as file,
            multiprocessing.get_context("spawn").Pool(args.jobs) as pool,
        ):
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            for row in pool.imap_unordered(run, [(*job, args.device, args.weights) for job in jobs]):
                writer.writerow(row)
                file.flush()
                print(", ".join(f"{row[name]}" for name in FIELDS[:-1]), file=sys.stderr, flush=True)
    print(table(read(args.results)))


if __name__ == "__main__":
    main()
