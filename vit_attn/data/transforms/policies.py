"""Augmentation policies for a batch: RandAugment, TrivialAugment and colour jitter.

The operation of each image and its magnitude are drawn on the host. On the CPU, images are grouped by operation;
elsewhere :mod:`~vit_attn.data.transforms.fixed_shape` gives the same pixels.

References:
    RandAugment, arXiv 1909.13719; TrivialAugment, arXiv 2103.10158; colour jitter, arXiv 2002.05709, appendix A.
    The operations and their strengths are those of ``RandAugment`` and ``TrivialAugmentWide`` in torchvision.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from vit_attn.data.transforms import geometry
from vit_attn.data.transforms import ops as image_ops
from vit_attn.data.transforms.ops import Pixels
from vit_attn.data.transforms.packing import pack_to_device
from vit_attn.data.transforms.rng import BatchRNG

BINS = 31
"""Magnitudes of an operation, from none to the largest."""


@dataclass(frozen=True)
class Operation:
    """An operation on images.

    Args:
        apply: From images and six numbers for each, to images.
        prepare: From magnitudes, height and width to as many of the six numbers as ``apply`` reads.
    """

    apply: Callable[[Pixels, Tensor], Pixels]
    prepare: Callable[[np.ndarray, int, int], np.ndarray]


def _one(function: Callable[[Pixels, Tensor], Pixels]) -> Operation:
    return Operation(lambda images, numbers: function(images, numbers[:, 0]), lambda values, *_: values[:, None])


def _none(function: Callable[[Pixels], Pixels]) -> Operation:
    return Operation(lambda images, _: function(images), lambda values, *_: values[:, None])


def _warp(matrices: Callable[[np.ndarray, int, int], np.ndarray]) -> Operation:
    return Operation(geometry.warp, matrices)


OPERATIONS = {
    "Identity": _none(lambda images: images),
    "ShearX": _warp(geometry.shear_x),
    "ShearY": _warp(geometry.shear_y),
    "TranslateX": _warp(geometry.translation_x),
    "TranslateY": _warp(geometry.translation_y),
    "Rotate": _warp(geometry.rotation),
    "Brightness": _one(image_ops.brightness),
    "Color": _one(image_ops.saturation),
    "Contrast": _one(image_ops.contrast),
    "Sharpness": _one(image_ops.sharpness),
    "Posterize": _one(image_ops.posterize),
    "Solarize": _one(image_ops.solarize),
    "AutoContrast": _none(image_ops.autocontrast),
    "Equalize": _none(image_ops.equalize),
    "Hue": _one(image_ops.hue),
    "Invert": _none(image_ops.invert),
}
"""Under torchvision's names; the first 14 are those of RandAugment and TrivialAugment."""
NAMES = tuple(OPERATIONS)
DRAWN = 14
_SIGNED = np.array([1 <= code <= 9 for code in range(DRAWN)])
_JITTERED = np.array([NAMES.index(name) for name in ("Brightness", "Contrast", "Color", "Hue")])


class Choice(NamedTuple):
    """An operation for each image, on the host.

    Args:
        codes: Index of the operation in ``NAMES``.
        values: Its parameter: factor, slope, pixels, degrees, bits, threshold, or turn of hue.
    """

    codes: Int64[np.ndarray, " B"]
    values: Float64[np.ndarray, " B"]


def apply_operations(images: Pixels, choice: Choice) -> Pixels:
    """Apply one operation to each image, to all images of an operation together."""
    codes, values = choice
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(NAMES) + 1))
    packed = np.zeros((len(images), 6), dtype=np.float32)
    for code, operation in enumerate(OPERATIONS.values()):
        rows = slice(ends[code], ends[code + 1])
        numbers = operation.prepare(values[order[rows]], images.shape[-2], images.shape[-1])
        packed[rows, : numbers.shape[1]] = numbers
    parameters, positions = pack_to_device((packed, order), images.device)
    result = images.clone()
    families = itertools.groupby(range(1, len(NAMES)), lambda code: OPERATIONS[NAMES[code]].apply)
    for function, members in families:  # the five warps are one
        first, *others = members
        rows = slice(ends[first], ends[first + len(others) + 1])
        if rows.start < rows.stop:
            chosen = positions[rows]
            result.index_copy_(0, chosen, function(images.index_select(0, chosen), parameters[rows]))
    return result


def draw_rand_augment(magnitude: int, size: tuple[int, int], rng: BatchRNG, rounds: int = 2) -> list[Choice]:
    """Draw ``rounds`` random operations of ``magnitude``, of 30, for each image.

    Args:
        magnitude: Strength of the operations.
        size: Height and width of the images in pixels.
        rng: Random numbers of this step.
        rounds: Operations, one after the other.
    """
    choices = []
    for _ in range(rounds):
        codes = rng.local(rng.generator.integers(0, DRAWN, rng.total))
        choices.append(Choice(codes, _signed_values(size, False, codes, magnitude, rng)))
    return choices


def draw_trivial_augment(probability: float, size: tuple[int, int], rng: BatchRNG) -> Choice:
    """Draw one random operation of random magnitude for each image, with some probability.

    Args:
        probability: Fraction of the images that are changed.
        size: Height and width of the images in pixels.
        rng: Random numbers of this step.
    """
    codes = rng.local(rng.generator.integers(0, DRAWN, rng.total))
    strengths = rng.local(rng.generator.integers(0, BINS, rng.total))
    values = _signed_values(size, True, codes, strengths, rng)
    return Choice(np.where(rng.local(rng.generator.random(rng.total)) < probability, codes, 0), values)


def draw_colour_jitter(strength: float, rng: BatchRNG) -> list[Choice]:
    """Draw changes of brightness, contrast, saturation and hue for each image, in random order.

    Factors are uniform in 1 ± strength, turns of hue in ± strength / 4 of the circle.
    """
    order = rng.local(rng.generator.permuted(np.tile(np.arange(4), (rng.total, 1)), axis=1))
    turns = rng.local(rng.generator.uniform(-strength, strength, (rng.total, 4)))
    values = turns * np.array([1, 1, 1, 0.25]) + np.array([1, 1, 1, 0])
    each = np.arange(len(order))
    return [Choice(_JITTERED[column], values[each, column]) for column in order.T]


def _signed_values(
    size: tuple[int, int], wide: bool, codes: np.ndarray, strengths: int | np.ndarray, rng: BatchRNG
) -> Float64[np.ndarray, " B"]:
    """Parameter of each image's operation; half of those with a sign are negative."""
    values = magnitudes(wide, *size)[codes, strengths]
    back = rng.local(rng.generator.random(rng.total)) < 0.5
    values = np.where(back & _SIGNED[codes], -values, values)
    factors = (codes >= NAMES.index("Brightness")) & (codes <= NAMES.index("Sharpness"))
    return np.where(factors, 1 + values, values)


@functools.lru_cache(maxsize=8)
def magnitudes(wide: bool, height: int, width: int) -> Float64[np.ndarray, "operations bins"]:
    """Torchvision's magnitudes of the first 14 operations, by bin.

    Args:
        wide: TrivialAugment's, else RandAugment's.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """

    def to(end: float, start: float = 0.0) -> np.ndarray:
        return torch.linspace(start, end, BINS).double().numpy()

    nothing, slope, factor = to(0.0), to(0.99 if wide else 0.3), to(0.99 if wide else 0.9)
    across, down = (np.trunc(to(32.0 if wide else 150.0 / 331.0 * size)) for size in (width, height))
    angle = to(135.0 if wide else 30.0)
    bits = (8 - torch.arange(BINS) / ((BINS - 1) / (6 if wide else 4))).round().double().numpy()
    warps, factors = (slope, slope, across, down, angle), (factor,) * 4
    return np.stack([nothing, *warps, *factors, bits, 255 * to(0.0, 1.0), nothing, nothing])
