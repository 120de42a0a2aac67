"""Boxes in images: of random erasing, of cutout and of CutMix; they are drawn on the host."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Shaped
from torch import Tensor

from vit_attn.data.transforms.rng import BatchRNG

Boxes = Int32[np.ndarray, "B 2 2"]
"""First row and the row after the last, and the same of columns, of a box in each image; it may reach beyond it."""


def draw_erasing(probability: float, size: tuple[int, int], rng: BatchRNG) -> Boxes:
    """Draw a box, up to a third of the area, in some of the images; in the others an empty one."""
    boxes = draw_boxes(rng.uniform(0.02, 1 / 3), size, rng)
    return keep_boxes(boxes, rng.uniform() < np.float32(probability))


def draw_cutout(side: int, size: tuple[int, int], rng: BatchRNG) -> Boxes:
    """Draw a square around a random pixel of each image."""
    starts = np.stack([rng.integers(0, length - 1) - side // 2 for length in size], axis=1)
    return np.stack([starts, starts + side], axis=-1).astype(np.int32)


def draw_boxes(areas: Float32[np.ndarray, " B"], size: tuple[int, int], rng: BatchRNG) -> Boxes:
    """Draw boxes of the image's aspect ratio around random centres.

    Args:
        areas: Area of each box as a fraction of the image's, what reaches beyond it included.
        size: Height and width of the images in pixels.
        rng: Random numbers of this step.
    """
    half = np.sqrt(areas) / np.float32(2)
    sides = []
    for length in size:
        centre, reach = rng.uniform(0, length), half * np.float32(length)
        sides.append(np.stack([(centre - reach).round(), (centre + reach).round()], axis=-1))
    return np.stack(sides, axis=1).astype(np.int32)


def keep_boxes(boxes: Boxes, kept: Bool[np.ndarray, " B"]) -> Boxes:
    """Replace the boxes of the other images by empty ones."""
    return boxes * kept[:, None, None]


def area_fractions(boxes: Boxes, size: tuple[int, int]) -> Float32[np.ndarray, " B"]:
    """Fraction of each image that its box covers."""
    pixels = np.diff(boxes.clip(0, np.array(size, dtype=np.int32)[:, None]), axis=-1).prod(axis=(1, 2))
    return pixels.astype(np.float32) / np.float32(size[0] * size[1])


def box_masks(boxes: Shaped[Tensor, "B K 2 2"], size: tuple[int, int]) -> Bool[Tensor, "B K height width"]:
    """Pixels in each of K boxes of each image.

    Args:
        boxes: As :data:`Boxes`.
        size: Height and width of the images in pixels.
    """
    position = torch.arange(max(size), device=boxes.device)
    inside = (position >= boxes[..., :1]) & (position < boxes[..., 1:])
    return inside[:, :, 0, : size[0], None] & inside[:, :, 1, None, : size[1]]
