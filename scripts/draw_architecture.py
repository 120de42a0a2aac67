#!/usr/bin/env python
"""Draw the figure of docs/architecture.md: four walks through the packages.

.venv/bin/python scripts/draw_architecture.py
"""

from draw_attention import INK, ROOT, WIDTH, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOMS = {
    "commands": "#f0e3c4",
    "inference": "#d9d2ee",
    "data": "#cfe3f5",
    "task": "#f6d3cc",
    "training": "#f2d9e6",
    "callbacks": "#d5ecd0",
    "attention_maps": "#c9ebe4",
    "plotting": "#e5e9c6",
    "reports": "#e3e3e3",
    "checkpoints": "#ead9c9",
    "model": "#dfe6ec",
    "tb_plugin": "#fbe0b0",
    "files": "#ffffff",
}
WALKS = {
    "An image, from file to optimiser step": [
        ("files", "image files"),
        ("data", "datasets/\nregistry → Split"),
        ("data", "loading/ with\ntransforms/"),
        ("task", "Classifier\ntraining_step"),
        ("training", "optimizer,\nschedule"),
        ("callbacks", "validation,\ncheckpoints"),
    ],
    "A map, from probe image to TensorBoard": [
        ("callbacks", "AttentionLogger\ndecides when"),
        ("attention_maps", "recording/\nmethods/"),
        ("attention_maps", "evaluation/\nbaselines"),
        ("plotting", "figures"),
        ("tb_plugin", "payload →\nevent file"),
        ("tb_plugin", "plugin →\npage"),
    ],
    "A start from weights": [
        ("commands", "fit\n--model.weights"),
        ("checkpoints", "io → ModelCard"),
        ("checkpoints", "finetune: size,\nnormalisation"),
        ("model", "network built,\nweights loaded"),
        ("task", "Classifier\nhead kept or new"),
        ("training", "freeze\nschedule"),
    ],
    "A prediction": [
        ("commands", "predict IMAGES\n--model"),
        ("checkpoints", "io → ModelCard"),
        ("inference", "TrainedNetwork"),
        ("data", "images/\nread, resized"),
        ("model", "logits →\nsoftmax"),
        ("reports", "CSV, JSON,\nParquet"),
    ],
}
BOX, GAP, LEFT, ROW = (1.17, 0.5), 0.215, 0.1, 1.02


def architecture() -> Figure:
    """One row of boxes per walk; a box names its package above and its part of the walk inside."""
    height = ROW * len(WALKS) + 0.06
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    for row, (title, steps) in enumerate(WALKS.items()):
        top = row * ROW
        axes.text(LEFT, top + 0.18, title, fontsize=9.5, weight="bold", va="center", color=INK)
        for col, (room, text) in enumerate(steps):
            left = LEFT + col * (BOX[0] + GAP)
            _box(axes, left, top + 0.34, room, text)
            if col:
                start, end, middle = left - GAP + 0.015, left - 0.015, top + 0.34 + BOX[1] / 2 + 0.05
                arrow = FancyArrowPatch(
                    (start, middle), (end, middle), arrowstyle="-|>", shrinkA=0, shrinkB=0, mutation_scale=9, color=INK
                )
                axes.add_patch(arrow)
    return figure


def _box(axes: Axes, left: float, top: float, room: str, text: str) -> None:
    box = FancyBboxPatch((left, top), BOX[0], BOX[1] + 0.1, boxstyle="round,pad=0,rounding_size=0.05")
    box.set(facecolor=ROOMS[room], edgecolor="#8c959f", linewidth=0.7)
    axes.add_patch(box)
    name = f"{room}/" if room not in ("task", "files") else {"task": "task.py", "files": ""}[room]
    axes.text(left + BOX[0] / 2, top + 0.115, name, fontsize=7.5, ha="center", va="center", color="#57606a")
    middle = top + (0.375 if name else 0.3)
    axes.text(left + BOX[0] / 2, middle, text, fontsize=8, ha="center", va="center", color=INK, linespacing=1.15)


def main() -> None:
    save(architecture(), ROOT / "docs/images/architecture.png")


if __name__ == "__main__":
    main()
