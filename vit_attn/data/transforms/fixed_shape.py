"""Application of one operation to each image by tensors of one shape, whatever the operations are.

All images go through the arithmetic of all operations, with parameters that change nothing where another operation is
meant. So the shapes are known, the code compiles to one graph, and a GPU gets few launches. The pixels are those of
:func:`~vit_attn.data.transforms.policies.apply_operations`, which costs a CPU less.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from vit_attn.data.transforms.geometry import move
from vit_attn.data.transforms.ops import (
    Pixels,
    blur,
    by_image,
    equalize,
    grey,
    hue,
    invert_from,
    stretch,
    to_uint8,
)
from vit_attn.data.transforms.packing import Array
from vit_attn.data.transforms.policies import DRAWN, NAMES, OPERATIONS, Choice

BLENDED = ("Brightness", "Contrast", "Color")
WARPED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
NEVER = 2**30
"""More pixels than an image has."""


class Blends(NamedTuple):
    """Parameters of brightness, contrast and saturation: pixels × factors + mean grey × ``mean`` + grey × ``own``."""

    factors: Array
    mean: Array
    own: Array


class Others(NamedTuple):
    """Parameters of the other operations that RandAugment and TrivialAugment draw.

    Args:
        divisors: Of :func:`~vit_attn.data.transforms.ops.equalize`.
        bits: Mask of the bits that posterize keeps.
        thresholds: Pixel value from which on an image is inverted, 256 for never.
        flattest: Of :func:`~vit_attn.data.transforms.ops.stretch`.
        matrices: Of :func:`~vit_attn.data.transforms.geometry.move`.
        blurred: Weight of the blurred image.
    """

    divisors: Array
    bits: Array
    thresholds: Array
    flattest: Array
    matrices: Array
    blurred: Array


class Operations(NamedTuple):
    """Parameters of a round of operations; None for those that no image gets in it.

    Args:
        blends: Brightness, contrast and saturation.
        others: The others that RandAugment and TrivialAugment draw.
        turns: Turns of hue.
    """

    blends: Blends | None
    others: Others | None
    turns: Array | None


def operations_of(choice: Choice, size: tuple[int, int], channels: int) -> Operations:
    """Prepare the parameters of one operation per image that RandAugment or TrivialAugment drew."""
    return Operations(_blends(choice, channels), _others(choice, size), None)


def jitter_operations(choices: Sequence[Choice], channels: int) -> list[Operations]:
    """Prepare the parameters of colour jitter: the hue is turned once, and the others come before or after it."""
    hue_code, nothing = NAMES.index("Hue"), Choice(np.zeros_like(choices[0].codes), np.zeros_like(choices[0].values))
    done = np.zeros(len(nothing.codes), dtype=bool)
    before, after, shifts = [], [], np.zeros(len(done), dtype=np.float32)
    for codes, values in choices:
        now = codes == hue_code
        shifts[now] = values[now]
        before.append(Choice(np.where(done | now, 0, codes), values))
        after.append(Choice(np.where(done & ~now, codes, 0), values))
        done |= now
    blended = [[Operations(_blends(each, channels), None, None) for each in part] for part in (before[:-1], after[1:])]
    return [*blended[0], Operations(None, None, shifts), *blended[1]]


def apply_to_all(images: Pixels, operations: Operations) -> Pixels:
    """Apply a round of operations, whose parameters are on the device of the images."""
    blends, others, turns = operations
    if turns is not None:
        images = hue(images, turns)
    result = images
    if others is not None:
        result = equalize(images, others.divisors[:, None, None]) & by_image(others.bits)
        result = invert_from(result, by_image(others.thresholds))
    if others is None and blends is None:
        return result
    values = result.float()
    if blends is not None:
        shades = grey(images)
        values.mul_(by_image(blends.factors)).add_(shades.mean(dim=(1, 2, 3), keepdim=True) * by_image(blends.mean))
        values.add_(shades.mul_(by_image(blends.own)))
    if others is not None:
        values = stretch(values, images, others.flattest[:, None, None])
        values = blur(move(values, others.matrices), others.blurred)
    return to_uint8(values)


def _blends(choice: Choice, channels: int) -> Blends:
    codes, values = choice
    brightness, contrast, saturation = (codes == NAMES.index(name) for name in BLENDED)
    if channels == 1:
        saturation &= False
    factors = np.where(brightness | contrast | saturation, values, 1).astype(np.float32)
    return Blends(factors, (1 - factors) * contrast, (1 - factors) * saturation)


def _others(choice: Choice, size: tuple[int, int]) -> Others:
    codes, values = choice
    chosen = {name: codes == code for code, name in enumerate(NAMES[:DRAWN])}
    whole = values.astype(np.float32)
    bits = (256 - np.exp2(8 - np.where(chosen["Posterize"], whole, 8))).round().astype(np.uint8)
    thresholds = np.where(chosen["Solarize"], np.ceil(whole), 256).astype(np.int16)
    return Others(
        np.where(chosen["Equalize"], 255, NEVER).astype(np.int32),
        bits,
        thresholds,
        np.where(chosen["AutoContrast"], 0, 255).astype(np.uint8),
        _matrices(choice, size),
        np.where(chosen["Sharpness"], 1 - whole, 0).astype(np.float32),
    )


def _matrices(choice: Choice, size: tuple[int, int]) -> Float32[np.ndarray, "B 2 3"]:
    """Matrices of the warps, and of the identity for the other images, from pixels to parts of the sides."""
    codes, values = choice
    matrices = np.tile(np.array([1, 0, 0, 0, 1, 0], dtype=np.float32), (len(codes), 1))
    for name in WARPED:
        rows = np.flatnonzero(codes == NAMES.index(name))
        matrices[rows] = OPERATIONS[name].prepare(values[rows], *size)
    height, width = size
    return matrices.reshape(-1, 2, 3) / np.array([[width / 2], [height / 2]], dtype=np.float32)
