"""Augmentation policies for a batch: RandAugment, TrivialAugment and colour jitter.

The operation of each image and its magnitude are drawn on the host, so that images can be grouped by operation without
waiting for the device; a batch needs one transfer of parameters per round.

References:
    RandAugment, arXiv 1909.13719; TrivialAugment, arXiv 2103.10158; colour jitter, arXiv 2002.05709, appendix A.
    The operations and their strengths are those of ``RandAugment`` and ``TrivialAugmentWide`` in torchvision.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from vit_attn.data.transforms import ops as image_ops
from vit_attn.data.transforms.ops import Pixels
from vit_attn.data.transforms.rng import BatchRNG, to_device

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
    return Operation(image_ops.warp, matrices)


OPERATIONS = {
    "Identity": _none(lambda images: images),
    "ShearX": _warp(image_ops.shear_x),
    "ShearY": _warp(image_ops.shear_y),
    "TranslateX": _warp(image_ops.translation_x),
    "TranslateY": _warp(image_ops.translation_y),
    "Rotate": _warp(image_ops.rotation),
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


def apply_operations(images: Pixels, codes: Int64[np.ndarray, " B"], values: Float64[np.ndarray, " B"]) -> Pixels:
    """Apply one operation to each image.

    Args:
        images: The images.
        codes: The operation of each, an index into ``NAMES``.
        values: Its parameter: factor, slope, pixels, degrees, bits, threshold, or turn of hue.
    """
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(NAMES) + 1))
    packed = np.zeros((len(images), 7), dtype=np.float32)
    packed[:, 6] = order  # whole numbers up to 2²⁴ are exact
    for code, operation in enumerate(OPERATIONS.values()):
        rows = slice(ends[code], ends[code + 1])
        numbers = operation.prepare(values[order[rows]], images.shape[-2], images.shape[-1])
        packed[rows, : numbers.shape[1]] = numbers
    parameters = to_device(packed, images.device)
    positions, result = parameters[:, 6].long(), images.clone()
    families = itertools.groupby(range(1, len(NAMES)), lambda code: OPERATIONS[NAMES[code]].apply)
    for function, members in families:  # the five warps are one
        first, *others = members
        rows = slice(ends[first], ends[first + len(others) + 1])
        if rows.start < rows.stop:
            chosen = positions[rows]
            result.index_copy_(0, chosen, function(images.index_select(0, chosen), parameters[rows, :6]))
    return result


def rand_augment(images: Pixels, magnitude: int, rng: BatchRNG, rounds: int = 2) -> Pixels:
    """Apply ``rounds`` random operations of ``magnitude``, of 30, to each image."""
    for _ in range(rounds):
        codes = rng.local(rng.generator.integers(0, DRAWN, rng.total))
        images = apply_operations(images, codes, _signed_values(images, False, codes, magnitude, rng))
    return images


def trivial_augment(images: Pixels, probability: float, rng: BatchRNG) -> Pixels:
    """Apply one random operation of random magnitude to each image with some probability."""
    codes = rng.local(rng.generator.integers(0, DRAWN, rng.total))
    strengths = rng.local(rng.generator.integers(0, BINS, rng.total))
    values = _signed_values(images, True, codes, strengths, rng)
    return apply_operations(
        images, np.where(rng.local(rng.generator.random(rng.total)) < probability, codes, 0), values
    )


def colour_jitter(images: Pixels, strength: float, rng: BatchRNG) -> Pixels:
    """Change brightness, contrast, saturation and hue of each image, in random order.

    Factors are uniform in 1 ± strength, turns of hue in ± strength / 4 of the circle.
    """
    order = rng.local(rng.generator.permuted(np.tile(np.arange(4), (rng.total, 1)), axis=1))
    turns = rng.local(rng.generator.uniform(-strength, strength, (rng.total, 4)))
    values = turns * np.array([1, 1, 1, 0.25]) + np.array([1, 1, 1, 0])
    each = np.arange(len(order))
    for column in order.T:
        images = apply_operations(images, _JITTERED[column], values[each, column])
    return images


def _signed_values(
    images: Pixels, wide: bool, codes: np.ndarray, strengths: int | np.ndarray, rng: BatchRNG
) -> Float64[np.ndarray, " B"]:
    """Parameter of each image's operation; half of those with a sign are negative."""
    values = magnitudes(wide, images.shape[-2], images.shape[-1])[codes, strengths]
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
