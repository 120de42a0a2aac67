#!/usr/bin/env python
"""Fine-tuning, a linear probe and training from scratch on a data set of real images, at equal images and steps.

The source is the shipped network of 142k parameters, trained on CIFAR-10. Each way trains through the task, data and
trainer that the command line uses, at 32×32 pixels, with the settings of ``configs/finetune.yaml``; from scratch, AdamW
and Muon are both tried. A seed draws the labelled images of each class, the first weights of what is new, the order and
the augmentation; all ways of a seed have the same images and steps. The rate of each way, and the optimiser from
scratch, is the one with the best accuracy on validation images with seed 0. Accuracy is that of the last step on
at most 2,000 test images (1,000 for validation), the same for all runs. Where a data set has validation images but no
test images, those are the test, and 20 training images of each class are validation images.

    .venv/bin/python scripts/bench_finetune.py --dataset cifar100 --root DATA
    .venv/bin/python scripts/bench_finetune.py --dataset folder --root FOLDER --name trashnet
    .venv/bin/python scripts/bench_finetune.py --table            # print the table of all data sets that were measured

Every finished run is stored in docs/measured/finetune/NAME.json at once, so that a run that was stopped goes on with
the next one.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from finetune_table import RESULTS, best_options, finetune_table, runs_of
from measured_with import context

from vit_attn.console import without_messages
from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.task import Classifier

NETWORK = "vit_attn_cifar10_patch4_32"
SIDE, VALIDATION = 32, 20
MOST = {"val": 1000, "test": 2000}
"""Images that accuracy is measured on, at most."""
COMMON: dict[str, Any] = {"weight_decay": 0.05, "warmup": 0.1, "label_smoothing": 0.1}
TUNED: dict[str, Any] = COMMON | {"weights": NETWORK, "optimizer": "adamw", "layer_decay": 0.75}
WAYS: dict[str, list[dict[str, Any]]] = {
    "scratch": [
        COMMON | {"arch": NETWORK, "optimizer": optimizer, "lr": lr}
        for optimizer, lr in (("adamw", 5e-3), ("muon", 2e-2), ("muon", 5e-2))
    ],
    "head": [TUNED | {"train": "head", "lr": lr} for lr in (5e-3, 2e-2, 5e-2)],
    "last block": [TUNED | {"train": 1, "lr": lr} for lr in (3e-3, 1e-2)],
    "full": [TUNED | {"probe": 0.2, "lr": lr} for lr in (5e-3, 1.5e-2)],
}
"""Options that each way is tried with; all are options of ``--model``."""


@dataclass(frozen=True)
class Images:
    """A data set whose images are decoded: labelled ones to draw from, and those that accuracy is measured on."""

    class_names: tuple[str, ...]
    source: DatasetInfo
    pool: Split
    val: Split
    test: Split


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="as --data.dataset of the command line: cifar100, gtsrb, folder, csv, …")
    parser.add_argument("--root", help="as --data.root: folder of the files; by default the variable VIT_ATTN_DATA")
    parser.add_argument("--name", help="name of the results; by default that of the data set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labelled", type=int, default=100, help="training images a class")
    parser.add_argument("--steps", type=int, default=200, help="of 50 images")
    parser.add_argument("--chosen-on", help="name of other results, whose best options are used instead of trying all")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args(words)
    if not args.table and not args.dataset:
        parser.error("--dataset names the data set")
    args.name = args.name or args.dataset
    return args


def load_images(dataset: str, root: str | None) -> Images:
    """Decode the images of a data set once, as the command line would."""
    data = ImageData(dataset, root=root, img_size=SIDE, normalize=NETWORK, channels=3, memory_budget_gb=16)
    data.prepare_data()
    data.setup("fit")
    source, has_test = data.cache.source, "test" in data.cache.found
    pool, val = data.cache.ready("train"), data.cache.ready("val")
    if has_test:
        test = data.cache.ready("test")
    else:
        by_class, test = list(shuffled_by_class(pool.labels, seed=0)), val
        val = pool.take(np.concatenate([each[:VALIDATION] for each in by_class]))
        pool = pool.take(np.sort(np.concatenate([each[VALIDATION:] for each in by_class])))
    return Images(source.class_names, source, pool, some_of(val, MOST["val"]), some_of(test, MOST["test"]))


def shuffled_by_class(labels: torch.Tensor, seed: int) -> Iterator[np.ndarray]:
    """Indices of the images of each class, in an order drawn by the seed."""
    rng = np.random.default_rng(seed)
    for index in range(int(labels.max()) + 1):
        yield rng.permutation(np.flatnonzero(labels.numpy() == index))


def some_of(split: Split, count: int) -> Split:
    """At most ``count`` images, drawn once for all runs."""
    order = np.random.default_rng(0).permutation(len(split))[:count]
    return replace(split.take(np.sort(order)), full_size=None)


def drawn_images(images: Images, labelled: int, seed: int) -> Split:
    """Training images: of each class as many as are labelled, drawn by the seed."""
    drawn = [each[:labelled] for each in shuffled_by_class(images.pool.labels, seed + 1)]
    return images.pool.take(np.sort(np.concatenate(drawn)))


def register(images: Images, labelled: int, seed: int) -> str:
    """Register the data set with the labelled images that the seed draws; its name."""
    splits = {"train": drawn_images(images, labelled, seed), "val": images.val, "test": images.test}
    name, source = f"labelled_by_seed_{seed}", images.source
    load = partial(_same, splits)
    DATASETS[name] = DatasetInfo(images.class_names, (SIDE, SIDE), None, None, load, source.augment)
    return name


def _same(splits: dict[str, Split], root: Path, download: bool) -> dict[str, Split]:
    return dict(splits)


def trainer(steps: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def tune(args: argparse.Namespace, images: Images, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Train with some options and a seed; accuracy on validation and test images."""
    L.seed_everything(seed, verbose=False)
    dataset = register(images, args.labelled, seed)
    data = ImageData(dataset, batch_size=50, seed=seed, img_size=SIDE, normalize=NETWORK)
    task = Classifier(**options, num_classes=len(images.class_names))
    fit = trainer(args.steps)
    fit.fit(task, datamodule=data)
    found = {}
    for name, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        (measured,) = trainer(1).test(task, dataloaders=loader, verbose=False)
        found[name] = round(measured["test/accuracy"], 5)
    return found


def measure(args: argparse.Namespace, images: Images) -> None:
    """Measure what the results lack: all options with seed 0, then the best of each way with the other seeds."""
    path = args.results / f"{args.name}.json"
    asked = {"labelled": args.labelled, "steps": args.steps, "chosen_on": args.chosen_on or args.name}
    stored = json.loads(path.read_text()) if path.is_file() else {"dataset": args.name} | asked | {"runs": []}
    if differing := {name: stored[name] for name, value in asked.items() if stored[name] != value}:
        raise SystemExit(f"{path} was measured with {differing}: choose the same, or another --name")
    stored |= context() | {
        "classes": len(images.class_names),
        "val_images": len(images.val),
        "test_images": len(images.test),
    }
    for seed in range(args.seeds):
        for way in args.ways:  # in turn, so that a run that is stopped has as many seeds of each
            for options in tried(args, way) if seed == 0 else [best_options(stored["runs"], way)]:
                run = {"way": way, "options": options, "seed": seed}
                if any({name: each[name] for name in run} == run for each in stored["runs"]):
                    continue
                run |= tune(args, images, options, seed)
                stored["runs"].append(run)
                write(path, stored)
                shown = {name: value for name, value in options.items() if name in ("optimizer", "lr")}
                print(f"{args.name}, {way}, {shown}, seed {seed}: {run['val']:.4f}, {run['test']:.4f}", flush=True)


def tried(args: argparse.Namespace, way: str) -> list[dict[str, Any]]:
    """Options that a way is tried with: all, or the best on another data set."""
    if args.chosen_on is None:
        return WAYS[way]
    return [best_options(runs_of(args.results)[args.chosen_on]["runs"], way)]


def write(path: Path, stored: dict[str, Any]) -> None:
    """Replace the results at once, so that a process that is killed leaves the older ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        runs = ",\n  ".join(json.dumps(run) for run in stored["runs"])
        head = json.dumps({name: value for name, value in stored.items() if name != "runs"}, indent=1)
        file.write(f'{head[:-2]},\n "runs": [\n  {runs}\n ]\n}}\n')
    os.replace(file.name, path)


def main(words: list[str] | None = None) -> None:
    args = parse_args(words)
    if not args.table:
        with without_messages():  # those of hundreds of runs say the same
            measure(args, load_images(args.dataset, args.root))
    print(finetune_table(runs_of(args.results)))


if __name__ == "__main__":
    main()
