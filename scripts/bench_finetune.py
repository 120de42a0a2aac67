#!/usr/bin/env python
"""Fine-tuning against training from scratch at equal steps, on data sets that are derived from CIFAR-10.

No other 32×32 data set is needed: CIFAR-10 is split by class. The source task is its first six classes (airplane to
frog) with all their training images; the target task is the other four (frog, horse, ship, truck), which the source
network never saw, with a few labelled images a class. Derived, so figures say how the ways compare, and are not
accuracies on a known benchmark. One small ViT of 142k parameters is trained on the source once; then each way trains on
the target, through the task, data and trainer that the command line uses. A seed draws the labelled images, the first
weights of what is new, the order and the augmentation; all ways of a seed have the same images and steps. Accuracy is
that of the last step on all 4,000 test images of the target classes.

    .venv/bin/python scripts/bench_finetune.py --root DATA
    .venv/bin/python scripts/bench_finetune.py --root DATA --quick
    .venv/bin/python scripts/bench_finetune.py --table              # print the table of what was measured

Writes docs/measured/finetune.csv, a row a way and seed; all start from one source network. Rates were chosen on the
2,000 validation images of the target classes (--split val --lr, one seed, four to six rates between 5e-4 and 5e-2):
each way has the best, but the head 2e-2, since 5e-2 gave 0.002 more only.
"""

import argparse
import csv
import functools
import logging
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch

from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS, find_dataset
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.task import Classifier

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/measured/finetune.csv"
SOURCE_CLASSES, TARGET_CLASSES = range(6), range(6, 10)
NET: dict[str, Any] = {
    "arch": "vit_attn_tiny_patch4_32",
    "arch_options": {
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "class_token": False,
        "global_pool": "avg",
    },
    "label_smoothing": 0.1,
}
FINE: dict[str, Any] = {"optimizer": "adamw", "lr": 5e-3, "layer_decay": 0.75, "warmup": 0.1}
WAYS: dict[str, dict[str, Any]] = {
    "scratch, AdamW": {"optimizer": "adamw", "lr": 5e-3, "warmup": 0.1},
    "scratch, Muon": {"optimizer": "muon", "lr": 2e-2, "warmup": 0.1},
    "head (linear probe)": FINE | {"train": "head", "lr": 2e-2},
    "last block": FINE | {"train": 1, "lr": 1e-2},
    "full": FINE,
    "probe, then full": FINE | {"probe": 0.2},
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of CIFAR-10's files; by default the variable VIT_ATTN_DATA")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labelled", type=int, default=100, help="training images a class of the target")
    parser.add_argument("--steps", type=int, default=160, help="of each way on the target, of 50 images")
    parser.add_argument("--source-epochs", type=int, default=6)
    parser.add_argument("--source", type=Path, help="checkpoint of an earlier run to start from; made where it is not")
    parser.add_argument("--split", default="test", choices=["test", "val"], help="images that accuracy is measured on")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="some of the ways")
    parser.add_argument("--lr", type=float, help="another rate for all ways")
    parser.add_argument("--quick", action="store_true", help="one seed and few steps, to see whether it runs")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.steps, args.source_epochs = 1, 20, 1
    return args


@functools.cache
def whole_set(root: Path, download: bool) -> dict[str, Split]:
    return find_dataset("cifar10").load(root, download)


def derived(classes: range, labelled: int | None, seed: int) -> str:
    """Register some classes of CIFAR-10 as a data set; its name."""
    whole = find_dataset("cifar10")

    def load(root: Path, download: bool) -> dict[str, Split]:
        return {
            name: of_classes(split, classes, labelled if name == "train" else None, seed)
            for name, split in whole_set(root, download).items()
        }

    name = f"cifar10_classes_{classes.start}_to_{classes.stop - 1}_seed_{seed}"
    names = tuple(whole.class_names[index] for index in classes)
    DATASETS[name] = DatasetInfo(names, whole.img_size, whole.mean, whole.std, load, whole.augment)
    return name


def of_classes(split: Split, classes: range, labelled: int | None, seed: int) -> Split:
    """Images of these classes, numbered from 0; of each class as many as are labelled, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for index in classes:
        of_class = (split.labels == index).nonzero()[:, 0]
        order = torch.randperm(len(of_class), generator=generator)[:labelled].sort().values
        chosen.append(of_class[order])
    taken = split.take(torch.cat(chosen).numpy())
    return Split(taken.images, taken.labels - classes.start)


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


def accuracy(task: Classifier, data: ImageData, split: str) -> float:
    measuring = trainer(1)
    loader = data.test_dataloader if split == "test" else data.val_dataloader
    data.val_dataloader = data.test_dataloader = loader
    return measuring.test(task, datamodule=data, verbose=False)[0]["test/accuracy"]


def train_source(args: argparse.Namespace, path: Path) -> None:
    L.seed_everything(0, verbose=False)
    data = ImageData(derived(SOURCE_CLASSES, None, 0), root=args.root, batch_size=250)
    task = Classifier(**NET, num_classes=len(SOURCE_CLASSES), optimizer="muon", lr=2e-2, decay="linear", warmup=0.04)
    fit = trainer(args.source_epochs * 27_000 // 250)
    fit.fit(task, datamodule=data)
    fit.save_checkpoint(path)
    said = f"{len(SOURCE_CLASSES)} source classes, {args.source_epochs} epochs: test accuracy"
    print(f"{said} {accuracy(task, data, 'test'):.4f}", flush=True)


def tune(args: argparse.Namespace, way: str, seed: int, source: Path) -> dict[str, Any]:
    """One way with one seed."""
    L.seed_everything(seed, verbose=False)
    options = WAYS[way] | ({} if args.lr is None else {"lr": args.lr})
    start = None if way.startswith("scratch") else str(source)
    data = ImageData(derived(TARGET_CLASSES, args.labelled, seed), root=args.root, batch_size=50, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the head is new
        settings: dict[str, Any] = NET | options
        task = Classifier(**settings, num_classes=len(TARGET_CLASSES), weights=start)
    trainer(args.steps).fit(task, datamodule=data)
    return {"way": way, "seed": seed, "accuracy": accuracy(task, data, args.split)}


def measure(args: argparse.Namespace, results: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, results.open("w", newline="") as file:
        source = args.source or Path(folder, "source.ckpt")
        if not source.is_file():
            train_source(args, source)
        rows = csv.DictWriter(file, ["way", "seed", "accuracy"], lineterminator="\n")
        rows.writeheader()
        for seed in range(args.seeds):
            for way in args.ways:  # in turn, so that what disturbs the machine disturbs all
                row = tune(args, way, seed, source)
                rows.writerow(row)
                file.flush()
                print(f"{way}, seed {seed}: {row['accuracy']:.4f}", file=sys.stderr, flush=True)


def table(results: Path) -> str:
    """Mean and standard deviation over the seeds, and the lowest and the highest."""
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| way | accuracy, mean ± standard deviation | lowest to highest |", "|---|---|---|"]
    for way in dict.fromkeys(row["way"] for row in rows):
        of_way = [row for row in rows if row["way"] == way]
        values = [100 * float(row["accuracy"]) for row in of_way]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {way} | {statistics.mean(values):.1f}{spread} % | {min(values):.1f} to {max(values):.1f} |")
    return "\n".join(lines)


def main() -> None:
    args = parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    whole = not args.quick and args.split == "test" and args.ways == list(WAYS) and args.lr is None
    results = RESULTS if whole or args.table else Path(tempfile.gettempdir(), "finetune.csv")
    if not args.table:
        measure(args, results)
        print(f"{args.labelled} images a class, {args.steps} steps of 50, {args.seeds} seeds, {args.split} images")
    print(table(results))


if __name__ == "__main__":
    main()
