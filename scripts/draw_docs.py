#!/usr/bin/env python
"""Make the runs, figures and sentences of README and docs: CIFAR-10, quickstart, fine-tuning, and the live page.

Trains as the reader does (about ten minutes), draws docs/images, writes the numbers into docs/measured, and writes the
sentences that follow from them into the pages. A finished run is reused instead of training again.

    .venv/bin/python scripts/draw_docs.py --root DATA
    .venv/bin/python scripts/draw_docs.py --only cifar10 --root DATA
    .venv/bin/python scripts/draw_docs.py --only quickstart --quickstart runs/quickstart/RUN --method relevance
"""

import argparse
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docs_explore import photograph_explore
from docs_finetune import finetune_numbers
from docs_sentences import MEASURED, PAGES, ROOT, SENTENCES, filled
from docs_tab import photograph
from draw_attention import patches, save
from draw_cifar import FIGURE as CIFAR_IMAGE
from draw_cifar import cifar_numbers
from PIL import Image
from runs_for_docs import fit, last_step, result

from vit_attn.attention_maps.methods.registry import drawn_methods
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.callbacks.attention_logger.figures import overlay
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.data import ImageData
from vit_attn.data_protocol import GroundTruth
from vit_attn.task import Classifier

IMAGES = ROOT / "docs/images"
PICTURED, FIGURE = 2, 2
"""Number of images in quickstart.png, and the image of attention_patches.png; both are in docs/attention.md."""
NAMES = {"raw": "last layer", "rollout": "rollout", "relevance": "relevance"}
"""Names of the methods in the tab, and in the figures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = ("cifar10", "quickstart", "finetune", "explore")
    parser.add_argument("--only", choices=choices, help="one of them; by default all")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("VIT_ATTN_DATA", ROOT / "data")),
        help="folder of cifar-10-batches-py (default: $VIT_ATTN_DATA)",
    )
    parser.add_argument("--quickstart", type=Path, metavar="RUN", help="a run of configs/quickstart.yaml, seed 0")
    parser.add_argument(
        "--method", choices=tuple(NAMES), help="method of the tab's picture; by default the one that the tab shows"
    )
    parser.add_argument("--image", type=int, default=1, help="image of the tab's picture, from 1 (default: 1)")
    parser.add_argument(
        "--work", type=Path, help="folder of the runs, whose finished runs are reused; by default a temporary one"
    )
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        work = (args.work or Path(folder)).resolve()
        if args.only in (None, "cifar10"):
            write("cifar10", cifar_numbers(args.root, IMAGES), (CIFAR_IMAGE,))
        if args.only in (None, "quickstart"):
            run = args.quickstart or fit(work, ["-c", str(ROOT / "configs/quickstart.yaml")])
            write("quickstart", quickstart(run.resolve(), args.method, args.image), QUICKSTART_IMAGES)
        if args.only in (None, "finetune"):
            write("finetune", finetune_numbers(work, IMAGES), FINETUNE_IMAGES)
        if args.only in (None, "explore"):
            print(photograph_explore(IMAGES / "explore.png"))
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text(), [f"{args.only}.json"] if args.only else tuple(SENTENCES)))


QUICKSTART_IMAGES = ("quickstart.png", "attention_patches.png", "attention_tab.png")
FINETUNE_IMAGES = ("finetune_attend.png", "finetune_changed.png")


def write(name: str, numbers: dict[str, Any], images: tuple[str, ...]) -> None:
    """Write the numbers of a run, the versions that made them, and the hashes of its figures."""
    made_by = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    hashes = {image: hashlib.sha256((IMAGES / image).read_bytes()).hexdigest()[:16] for image in images}
    whole = {"made_by": made_by, **numbers, "pictures": hashes}
    (MEASURED / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def quickstart(run: Path, method: str | None, image: int) -> dict[str, Any]:
    """Draw the figures of the quickstart's network, and return their numbers."""
    checkpoint = run / "checkpoints/last.ckpt"  # the last step, which the tab has too
    task = Classifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    data = ImageData("coins")
    data.prepare_data()
    options = SnapshotOptions(max(PICTURED, FIGURE, image), drawn_methods())
    snapshot = AttentionSnapshot.take(task.eval(), data, options, step=last_step(run)).on_host()
    probe: Any = snapshot.probe
    recording, views = snapshot.recording, snapshot.summaries
    drawn = [overlay(snapshot, i, data.class_names, dpi=150, run="quickstart", across=4) for i in range(PICTURED)]
    Image.fromarray(np.concatenate(drawn)).save(IMAGES / "quickstart.png", optimize=True)
    save(patches(checkpoint, FIGURE), IMAGES / "attention_patches.png")
    images = [numbers_of(view, truth) for view, truth in zip(views, probe.ground_truth, strict=True)]
    for each, view, label in zip(images, views, probe.labels.tolist(), strict=True):
        each |= {"label": data.class_names[label], "predicted": data.class_names[view.predicted]}
    bought = probe.ground_truth[image - 1].regions["bought"][0]
    place = (*divmod(bought, recording.grid_size[1]), *recording.grid_size)
    shown, value = photograph(run, IMAGES / "attention_tab.png", method, image, place)
    expected = images[image - 1]["methods"][NAMES[shown]]["bought"]["raw"]
    if abs(value - expected) > 0.02 * expected + 1e-4:
        raise SystemExit(f"the tab shows {value} for the bought coin by {shown}, the checkpoint gives {expected}")
    return {
        "command": "vit-attn fit -c configs/quickstart.yaml",
        "seed": 0,
        "steps": last_step(run),
        "val_accuracy": result(run, "vit_final/best_val_accuracy"),
        "patches": recording.grid_size[0] * recording.grid_size[1],
        "pictured": PICTURED,
        "figure": FIGURE,
        "methods": [method.label.removesuffix(", mean") for method in snapshot.rows],
        "names": NAMES,
        "tab": {"method": shown, "image": image},
        "images": images,
    }


def numbers_of(view: AttentionSummary, truth: GroundTruth) -> dict[str, Any]:
    """Value and rank of the bought coin and of the buyer among the patches, by method."""
    methods = {}
    for name, row in {"relevance": view.relevance, "last layer": view.last, "rollout": view.rollout}.items():
        values = view.patches(row).flatten()
        shares = values / values.sum() if name == "relevance" else values  # as the pictures have it
        methods[name] = {
            place: {
                "value": round(float(shares[patch]), 4),
                "raw": round(float(values[patch]), 5),
                "rank": 1 + int((values > values[patch]).sum()),
            }
            for place in ("bought", "buyer")
            for patch in truth.regions[place]
        }
    return {"methods": methods}


if __name__ == "__main__":
    main()
