#!/usr/bin/env python
"""Draw the figures of docs/attention.md into docs/images.

The last one shows a trained network, the quickstart's: scripts/draw_docs.py draws it.

    .venv/bin/python scripts/draw_attention.py
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image
from torch import Tensor

from vit_attn.attention_maps import raw_rows, record, rollout
from vit_attn.checkpoints.weights import load_weights
from vit_attn.data import ImageData
from vit_attn.data.datasets.coins import GRID, PATCH
from vit_attn.data_protocol import GroundTruth
from vit_attn.model import Attention, VisionTransformer
from vit_attn.model.attention import hard_weights
from vit_attn.model.positions import local_attn_mask
from vit_attn.model.scores import AFFINITIES, Scores, keep_top_k
from vit_attn.plotting.overlay import MARK_COLOUR
from vit_attn.plotting.scale import COLOURMAP

ROOT = Path(__file__).parent.parent
WIDTH = 8.3
"""Inches of every figure: at 100 to the inch, the 830 pixels that GitHub gives a page."""
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
HAS, B, C, INK = "#c9ccd1", "#0072b2", "#d55e00", "#24292f"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs/images")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    save(borrowing(), args.folder / "attention_borrowing.png")
    save(weights_and_values(), args.folder / "attention_weights.png")
    save(forms(), args.folder / "attention_forms.png")


def save(figure: Figure, path: Path) -> None:
    """At twice the resolution of the page."""
    figure.set_dpi(200)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def borrowing() -> Figure:
    """Who asks whom for what, and what comes of it under each way to share out."""
    affinities, gifts = torch.tensor([1000.0, 250.0]) / 500, torch.tensor([100.0, 150.0])
    ways = {
        "B alone": torch.tensor([1.0, 0.0]),
        "B and C: divided by their sum": affinities / affinities.sum(),
        "B and C: softmax": affinities.softmax(dim=0),
    }
    figure = Figure(figsize=(WIDTH, 2.75))
    people = figure.add_axes((0.0, 0.0, 0.5, 1.0))
    people.set(xlim=(0, 4.15), ylim=(0, 2.75))
    people.axis("off")
    _people(people, affinities.tolist())

    bars = figure.add_axes((0.51, 0.18, 0.475, 0.68))
    bars.set(xlim=(0, 112), ylim=(2.4, -0.65), yticks=[])
    for row, (way, shares) in enumerate(ways.items()):
        bars.text(0, row - 0.3, way, fontsize=9, va="bottom", color=INK)
        left = 0.0
        for share, gift, colour in zip(shares.tolist(), gifts.tolist(), (B, C), strict=True):
            if not share:
                continue
            bars.barh(row, share * gift, left=left, height=0.5, color=colour, edgecolor="white", linewidth=1.5)
            label = f"{share:.3g} {TIMES} {gift:.0f}"
            bars.text(left + share * gift / 2, row, label, fontsize=8, color="white", ha="center", va="center")
            left += share * gift
        total = f"416 + {left:.4g} = {416 + left:.4g}"
        bars.text(110, row - 0.3, total, fontsize=9, ha="right", va="bottom", color=INK, weight="bold")
    bars.set_xlabel(f"coins that A borrows: share {TIMES} what is given", fontsize=8.5, color=INK, labelpad=3)
    bars.set_xticks([0, 50, 100])
    bars.tick_params(labelsize=8, length=3, color=INK, labelcolor=INK)
    for side in ("top", "right", "left"):
        bars.spines[side].set_visible(False)
    figure.text(0.51, 0.92, "What A borrows, and has then", fontsize=10, weight="bold", color=INK)
    return figure


def _people(axes: Axes, affinities: list[float]) -> None:
    def person(x: float, y: float, name: str, colour: str, ink: str = "white") -> None:
        axes.plot(x, y, "o", markersize=34, color=colour)
        axes.text(x, y, name, fontsize=13, weight="bold", ha="center", va="center_baseline", color=ink)

    axes.text(0.08, 2.53, "Who asks whom", fontsize=10, weight="bold", color=INK)
    person(0.42, 1.45, "A", HAS, INK)
    axes.text(0.1, 1.08, "has 416\nquery: wants 500", fontsize=8.5, va="top", color=INK, linespacing=1.4)
    lenders = (("B", B, 2.0, 1000, 100, (1.4, 1.97)), ("C", C, 0.8, 250, 150, (1.72, 0.68)))
    for (name, colour, y, has, gives, label), affinity in zip(lenders, affinities, strict=True):
        person(2.5, y, name, colour)
        axes.text(
            2.85, y, f"key: has {has}\nvalue: gives {gives}", fontsize=8.5, va="center", color=INK, linespacing=1.4
        )
        ends = {"posA": (2.25, y), "posB": (0.69, 1.45 + (0.09 if y > 1.45 else -0.09))}
        arrow = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 1.4 * affinity, "shrinkA": 0, "shrinkB": 0}
        axes.add_patch(FancyArrowPatch(**ends, color=colour, **arrow))
        axes.text(*label, f"{has} / 500 = {affinity:.3g}", fontsize=8.5, ha="center", color=INK)
    axes.text(1.4, 2.15, "affinity", fontsize=8.5, ha="center", color=INK, style="italic")


def weights_and_values() -> Figure:
    """One attention as a product of matrices; a row of the weights mixes the values into one output."""
    torch.manual_seed(5)
    tokens, asking = torch.randn(1, 6, 4), 2
    attention = Attention(4, num_heads=1)
    with torch.no_grad():
        attention.qkv.weight.mul_(3)
        weights = attention.weights(tokens)[0, 0]
        values = tokens[0] @ attention.value_weights.T
        outputs = weights @ values
    reach = float(values.abs().max())
    panels = (
        ("weights: who looks at whom", 0.47, weights, (COLOURMAP, Normalize(0, 1)), "key", "query"),
        ("values: what each gives", 3.79, values, ("PuOr", Normalize(-reach, reach)), "channel", "key"),
        ("outputs: what each receives", 6.25, outputs, ("PuOr", Normalize(-reach, reach)), "channel", "query"),
    )
    (cell_width, cell_height), height = (0.42, 0.33), 2.75
    figure = Figure(figsize=(WIDTH, height))
    for title, left, matrix, (colours, scale), across, down in panels:
        rows, cols = matrix.shape
        place = (left / WIDTH, 0.45 / height, cols * cell_width / WIDTH, rows * cell_height / height)
        axes = figure.add_axes(place)
        axes.imshow(matrix.numpy(), cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
        _numbers(axes, matrix, colours, scale, "{:.0%}" if colours == COLOURMAP else "{:.1f}")
        axes.set_title(title, fontsize=9, pad=5, color=INK, loc="left")
        axes.set_xticks(range(cols), [str(col + 1) for col in range(cols)])
        axes.set_yticks(range(rows), [str(row + 1) for row in range(rows)])
        axes.tick_params(labelsize=8, length=0, pad=3, labelcolor=INK)
        axes.set_xlabel(across, fontsize=8.5, color=INK, labelpad=2)
        axes.set_ylabel(down, fontsize=8.5, color=INK, labelpad=2)
        for side in axes.spines.values():
            side.set_visible(False)
        if down == "query":
            axes.add_patch(_frame(-0.5, asking - 0.5, cols, 1))
    for x, sign in ((3.25, TIMES), (5.72, "=")):
        figure.text(x / WIDTH, 1.44 / height, sign, fontsize=16, ha="center", va="center", color=INK)
    return figure


def _frame(left: float, top: float, width: float, height: float) -> Rectangle:
    return Rectangle((left, top), width, height, fill=False, edgecolor=MARK_COLOUR, linewidth=2.2, clip_on=False)


def _numbers(axes: Axes, matrix: Tensor, colours: str, scale: Normalize, pattern: str) -> None:
    mappable = ScalarMappable(scale, colours)
    for (row, col), number in np.ndenumerate(matrix.numpy()):
        light = float(np.dot(mappable.to_rgba(number)[:3], (0.299, 0.587, 0.114))) > 0.5
        text = pattern.format(number).replace("-0.0", "0.0").replace("-", MINUS)
        axes.text(col, row, text, fontsize=8, ha="center", va="center", color=INK if light else "white")


def forms() -> Figure:
    """The same queries and keys under each form; all weights on one scale."""
    queries, keys = _queries_and_keys()
    scores: dict[str, Scores] = {}
    for name, affinity in AFFINITIES.items():
        torch.manual_seed(0)
        module: Any = affinity(1, queries.shape[-1])
        if name == "additive":
            torch.nn.init.constant_(module.direction, 2.0)
        with torch.no_grad():
            scores[name] = module(queries, keys)
    default = scores["scaled_dot_product"]
    maps = {name.replace("_", " "): each.materialize().softmax(dim=-1) for name, each in scores.items()}
    maps["top k: best 4 keys"] = keep_top_k(default, 4).materialize().softmax(dim=-1)
    maps["hard"] = hard_weights(default)
    maps["window of 3"] = default.masked(local_attn_mask((4, 4), 0, 3)).materialize().softmax(dim=-1)

    figure, scale, side, height = Figure(figsize=(WIDTH, 4.25)), PowerNorm(0.5, 0, 100), 1.55, 4.25
    for number, (name, weights) in enumerate(maps.items()):
        row, col = divmod(number, 4)
        place = ((0.45 + 1.73 * col) / WIDTH, (2.42 - 1.97 * row) / height, side / WIDTH, side / height)
        axes = figure.add_axes(place)
        axes.imshow(100 * weights[0, 0].numpy(), cmap=COLOURMAP, norm=scale, interpolation="nearest")
        axes.set_title(name, fontsize=9, pad=4, color=INK)
        axes.set_xticks([0, 4, 8, 12], ["1", "5", "9", "13"] if row else [])
        axes.set_yticks([0, 4, 8, 12], ["1", "5", "9", "13"] if not col else [])
        axes.tick_params(labelsize=8, length=2, pad=2, labelcolor=INK)
        axes.set_xlabel("key" if row else "", fontsize=8.5, labelpad=1, color=INK)
        axes.set_ylabel("" if col else "query", fontsize=8.5, labelpad=1, color=INK)
    bar_axes = figure.add_axes((7.45 / WIDTH, 0.45 / height, 0.11 / WIDTH, 3.52 / height))
    bar = figure.colorbar(ScalarMappable(scale, COLOURMAP), cax=bar_axes, ticks=[0, 5, 20, 50, 100])
    bar.set_label("% of a query's attention", fontsize=8.5, labelpad=3, color=INK)
    bar.ax.tick_params(labelsize=8, length=2, pad=2, labelcolor=INK)
    return figure


def _queries_and_keys() -> tuple[Tensor, Tensor]:
    """16 tokens of a 4×4 grid; each looks for what is near it, and the key of token 11 is three times as long."""
    torch.manual_seed(2)
    place = torch.cartesian_prod(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 4))
    features = torch.cat([torch.sin(2 * place), torch.cos(2 * place), 0.2 * torch.randn(16, 4)], dim=1)
    queries = 3 * torch.nn.functional.normalize(features, dim=1)
    keys = queries.clone()
    keys[10] *= 3
    return queries[None, None], keys[None, None]


def patches(weights: Path, which: int = 2) -> Figure:
    """An image, the patches it is cut into, and where a trained network's pooled row looks.

    Args:
        weights: Of the quickstart's network.
        which: Number of the validation image, from 1.
    """
    net = VisionTransformer(img_size=32, patch_size=4, num_classes=10, embed_dim=64, depth=3, num_heads=4, mlp_ratio=2)
    load_weights(net.eval(), weights)
    data = ImageData("coins")
    data.prepare_data()
    probe: Any = data.probe(which)
    with torch.no_grad(), record(net) as recording:
        predicted = int(net(data.normalize(probe.images))[-1].argmax())
    label, truth = data.class_names[int(probe.labels[-1])], probe.ground_truth[-1]
    image = probe.images[-1].permute(1, 2, 0).numpy()
    maps = {"last layer": raw_rows(recording)[-1, 0].numpy(), "rollout": rollout(recording)[-1, 0].numpy()}

    figure, side, height = Figure(figsize=(WIDTH, 2.32)), 1.72, 2.32
    scale = Normalize(0, 100 * max(float(row[1:].max()) for row in maps.values()))

    def panel(number: int, title: str) -> Axes:
        place = ((0.06 + (side + 0.13) * number) / WIDTH, 0.32 / height, side / WIDTH, side / height)
        axes = figure.add_axes(place)
        axes.set_title(title, fontsize=9, pad=5, color=INK)
        axes.set(xticks=[], yticks=[])
        return axes

    whole = panel(0, f"image of class “{label}”")
    whole.imshow(image, interpolation="nearest")
    whole.set_xlabel("solid: bought, dotted: buyer", fontsize=8, labelpad=4, color=INK)
    _mark(whole, truth)
    tiles = panel(1, "its 64 patches")
    tiles.imshow(_apart(image), interpolation="nearest")
    tiles.set_xlabel(f"the network answers “{data.class_names[predicted]}”", fontsize=8, labelpad=4, color=INK)
    for spine in tiles.spines.values():
        spine.set_visible(False)
    grey = image @ np.array([0.299, 0.587, 0.114])
    for number, (name, row) in enumerate(maps.items()):
        axes = panel(2 + number, f"{name}, from CLS")
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        over = {"extent": (-0.5, 31.5, 31.5, -0.5), "interpolation": "nearest"}
        axes.imshow(100 * row[1:].reshape(GRID, GRID), cmap=COLOURMAP, norm=scale, alpha=0.6, **over)
        axes.set_xlabel(f"+ {row[0]:.0%} on CLS itself", fontsize=8, labelpad=4, color=INK)
        _mark(axes, truth)
    bar_axes = figure.add_axes((7.5 / WIDTH, 0.32 / height, 0.1 / WIDTH, side / height))
    bar = figure.colorbar(ScalarMappable(scale, COLOURMAP), cax=bar_axes, alpha=0.6)
    bar.set_label("% of attention, a patch", fontsize=8.5, labelpad=3, color=INK)
    bar.ax.tick_params(labelsize=8, length=2, pad=2, labelcolor=INK)
    return figure


def _mark(axes: Axes, truth: GroundTruth) -> None:
    for region, line in (("bought", "solid"), ("buyer", "dotted")):
        row, col = divmod(truth.regions[region][0], GRID)
        frame = _frame(col * PATCH - 0.5, row * PATCH - 0.5, PATCH, PATCH)
        frame.set(linestyle=line, linewidth=1.6)
        axes.add_patch(frame)


def _apart(image: np.ndarray, gap: int = 1, zoom: int = 3) -> np.ndarray:
    """The patches of an image with white between them."""
    side = PATCH * zoom + gap
    page = np.full((GRID * side - gap, GRID * side - gap, 3), 255, dtype=np.uint8)
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    for row in range(GRID):
        for col in range(GRID):
            tile = large[row * PATCH * zoom : (row + 1) * PATCH * zoom, col * PATCH * zoom : (col + 1) * PATCH * zoom]
            page[row * side : row * side + PATCH * zoom, col * side : col * side + PATCH * zoom] = tile
    return page


if __name__ == "__main__":
    main()
