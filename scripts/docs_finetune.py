"""Run the commands of docs/finetune.md in a folder of their own, and collect the numbers that it shows."""

import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from docs_sentences import ROOT
from PIL import Image
from runs_for_docs import events, finished, fit, last_step, program, result

from vit_attn.attention_maps.methods.measures import divergence
from vit_attn.attention_maps.recording.record import record
from vit_attn.data import ImageData
from vit_attn.task import Classifier

TUNED = ["-c", str(ROOT / "configs/finetune.yaml"), "--data.dataset=folder", "--model.lr=5e-3"]
SOURCE = "vit_attn_cifar10_patch4_32"
SCRATCH = [
    "--model.weights=null",
    f"--model.arch={SOURCE}",
    "--model.probe=0",
    "--model.layer_decay=1",
    "--data.img_size=32",
    f"--data.normalize={SOURCE}",
]
SEEDS = (0, 1, 2)
IMAGE = 1
"""Validation image of the figure, from 1."""
COMPARED = 4
"""Images that the run compares: the default of the callback."""


def finetune_numbers(work: Path, images: Path) -> dict[str, Any]:
    """Train from weights and from scratch, test, predict and attend; draw the figures and return the numbers."""
    shapes = work / "shapes"
    subprocess.run([sys.executable, str(ROOT / "scripts/example_images.py"), str(shapes)], check=True)
    options = [*TUNED, f"--data.root={shapes / 'labelled'}"]
    tuned, scratch = trained(work, options, "finetune"), trained(work, [*options, *SCRATCH], "scratch")
    run, best = tuned[0], f"{tuned[0]}/checkpoints/best.ckpt"
    report = program(["test", f"--model={best}", "--trainer.enable_progress_bar=false"])
    table = work / "predictions.csv"
    program(["predict", str(shapes / "new"), f"--model={best}", f"--output={table}", "--top_k=2", "--overwrite"], True)
    rows = table.read_text().replace(f"{shapes}/", "shapes/").splitlines()
    program(["attend", str(shapes / "new/star_1.png"), f"--model={best}", f"--output={work / 'attention'}"])
    (work / "attention/star_1.attention.png").replace(images / "finetune_attend.png")
    draw_changed(run, images / "finetune_changed.png")
    named = [re.match(r"shapes/new/(\w+)_\d+\.\w+,([^,]+)", row) for row in rows[1:]]
    data = ImageData("folder", root=str(shapes / "labelled"), img_size=32, normalize=SOURCE)
    data.prepare_data()
    return {
        "command": "docs/finetune.md, from scripts/example_images.py on",
        "steps": last_step(run),
        "val_images": data.fingerprint()["images"]["val"],
        "tuned": [result(each, "vit_final/best_val_accuracy") for each in tuned],
        "scratch": [result(each, "vit_final/best_val_accuracy") for each in scratch],
        "scratch_options": "`" + " ".join(SCRATCH) + "`",
        "report": report_lines(report),
        "predictions": rows,
        "new": len(rows) - 2,  # without the header and the corrupt file
        "right": sum(found is not None and found[1] == found[2] for found in named),
        "divergence": divergence_of(run, data),
    }


def trained(work: Path, options: Sequence[str], name: str) -> list[Path]:
    """Train a run for each seed; finished runs in the folder are reused."""
    finished_runs = [each for each in sorted((work / "runs" / name).glob("*")) if finished(each)]
    missing = SEEDS[len(finished_runs) :]
    new_runs = (fit(work, [*options, f"--seed_everything={seed}"], name) for seed in missing)
    return [*finished_runs, *new_runs][: len(SEEDS)]


def report_lines(report: str) -> str:
    """Extract the report from the output of ``test``."""
    lines = report.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("test:"))
    return "\n".join(line.rstrip() for line in lines[first:] if not line.startswith("written"))


def divergence_of(run: Path, data: ImageData) -> list[list[float]]:
    """Divergence of each head at the end of the run, in nats, by layer; checked against the logged values."""
    images = data.normalize(data.probe(COMPARED).images)
    tuned = Classifier.load_from_checkpoint(run / "checkpoints/last.ckpt", map_location="cpu", weights_only=True).net
    recordings = []
    for net in (timm.create_model(SOURCE, pretrained=True), tuned):
        with torch.no_grad(), record(net.eval()) as recording:
            net(images)
        recordings.append(recording)
    apart = divergence(*recordings)
    for layer, heads in enumerate(apart, start=1):
        logged = result(run, f"vit_attention/divergence_nats/layer_{layer}")
        if abs(logged - float(heads.mean())) > 0.002:
            raise SystemExit(f"layer {layer} moved by {heads.mean():.4f} nats, but the run says {logged}")
    return [[round(value, 4) for value in heads] for heads in apart.tolist()]


def draw_changed(run: Path, picture: Path) -> None:
    """Draw the change by fine-tuning from the last logged step of a run."""
    log = events(run)
    tags = (f"vit_attention/image_{IMAGE}_source_and_tuned", "vit_attention/divergence_of_heads")
    last = [Image.open(io.BytesIO(log.Images(tag)[-1].encoded_image_string)).convert("RGB") for tag in tags]
    whole = Image.new("RGB", (sum(each.width for each in last), max(each.height for each in last)), "white")
    for number, each in enumerate(last):
        whole.paste(each, (sum(earlier.width for earlier in last[:number]), 0))
    whole.save(picture, optimize=True)
