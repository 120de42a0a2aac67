"""The README's first figure: CIFAR-10 test images, and their relevance for the class that a network predicts."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data
import torch
from draw_attention import INK, WIDTH, save
from matplotlib import colormaps
from matplotlib.figure import Figure
from torchvision.datasets import CIFAR10

from vit_attn.attention_maps import record, relevance

NETWORK = "vit_attn_cifar10_patch4_32"
FIGURE = "cifar10_relevance.png"
CLASSES = 6
"""The figure shows the first test image of each of the first six classes."""


def cifar_numbers(root: Path, images: Path) -> dict[str, Any]:
    """Draw the figure into ``images``; return each image's class, predicted class and probability.

    Args:
        root: Folder that holds ``cifar-10-batches-py``.
        images: Folder of the figure.
    """
    net = timm.create_model(NETWORK, pretrained=True).eval()
    names, indices, shown = first_of_each_class(root)
    statistics = timm.data.resolve_model_data_config(net)
    mean, std = (torch.tensor(statistics[name]).view(3, 1, 1) for name in ("mean", "std"))
    with record(net, gradients=True) as recording:
        pixels = torch.from_numpy(shown).permute(0, 3, 1, 2) / 255
        probabilities = net((pixels - mean) / std).detach().softmax(dim=-1)
    maps = relevance(recording)[:, 0, recording.num_prefix_tokens :].detach().unflatten(-1, recording.grid_size)
    confidence, predicted = probabilities.max(dim=-1)
    rows = [
        {"test_image": index, "class": label, "predicted": names[guess], "probability": round(probability, 3)}
        for index, label, guess, probability in zip(
            indices, names, predicted.tolist(), confidence.tolist(), strict=False
        )
    ]
    save(figure(shown, maps.numpy(), rows), images / FIGURE)
    return {"command": "scripts/draw_docs.py --only cifar10", "network": NETWORK, "images": rows}


def first_of_each_class(root: Path) -> tuple[list[str], list[int], np.ndarray]:
    """Names of all classes; numbers (from 0, in the order of the test file) and pixels of the images that are drawn."""
    test = CIFAR10(str(root), train=False)
    indices = [test.targets.index(label) for label in range(CLASSES)]
    return list(test.classes), indices, test.data[indices]


def figure(images: np.ndarray, maps: np.ndarray, rows: list[dict[str, Any]]) -> Figure:
    """Images in the first row, their relevance in the second, each on a scale of its own."""
    side, gap, left, top = 1.29, 0.06, 0.2, 0.26
    height = top + 2 * side + gap + 0.06
    page = Figure(figsize=(WIDTH, height), facecolor="white")
    for number, (image, relevance_map, row) in enumerate(zip(images, maps, rows, strict=True)):
        for line in range(2):
            place = (left + number * (side + gap), height - top - side - line * (side + gap), side, side)
            axes = page.add_axes((place[0] / WIDTH, place[1] / height, side / WIDTH, side / height))
            axes.set(xticks=[], yticks=[])
            axes.set_axis_off()
            axes.imshow(image if line == 0 else over_grey(image, relevance_map), interpolation="nearest")
            if line == 0:
                right = "" if row["class"] == row["predicted"] else f" (is: {row['class']})"
                axes.set_title(f"{row['predicted']} {row['probability']:.0%}{right}", fontsize=9, pad=4, color=INK)
    for line, text in enumerate(("image", "relevance")):
        middle = height - top - side / 2 - line * (side + gap)
        page.text(0.1 / WIDTH, middle / height, text, rotation=90, fontsize=9, ha="center", va="center", color=INK)
    return page


def over_grey(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The map over the image in grey: from its lowest patch, transparent, to its highest, opaque."""
    patch = (image.shape[0] // values.shape[0], image.shape[1] // values.shape[1])
    scaled = (values - values.min()) / (values.max() - values.min())
    strength = scaled.repeat(patch[0], axis=0).repeat(patch[1], axis=1)[..., None]
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None] / 255
    colour = colormaps["inferno"](0.3 + 0.6 * strength[..., 0])[..., :3]
    opacity = 0.9 * strength
    return (1 - opacity) * grey + opacity * colour
