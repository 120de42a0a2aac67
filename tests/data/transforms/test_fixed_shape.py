"""What is applied to all images at once gives the very pixels of what is applied in groups."""

import functools

import numpy as np
import pytest
import torch

from vit_attn.data.transforms.fixed_shape import Operations, apply_to_all, jitter_operations, operations_of
from vit_attn.data.transforms.packing import pack_to_device
from vit_attn.data.transforms.policies import (
    _SIGNED,
    BINS,
    DRAWN,
    NAMES,
    Choice,
    apply_operations,
    draw_colour_jitter,
    magnitudes,
)
from vit_attn.data.transforms.rng import BatchRNG

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 17, 30)]


def pictures(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Noise, ramps, dark and flat images in turn."""
    draws = np.random.default_rng(count)
    images = draws.integers(0, 256, (count, channels, height, width))
    ramp = np.arange(height)[:, None] * 4 + np.arange(width) * 3
    images[1::4] = ramp % 256
    images[2::4] = images[2::4] // 5 + 20
    images[3::4] = draws.integers(0, 256, (len(images[3::4]), channels, 1, 1))
    return torch.from_numpy(images.astype(np.uint8))


def applied(images: torch.Tensor, operations: list[Operations]) -> torch.Tensor:
    return functools.reduce(apply_to_all, pack_to_device(tuple(operations), "cpu"), images)


def all_strengths(code: int, wide: bool, size: tuple[int, int]) -> Choice:
    """One operation in each of its magnitudes, with both signs, on four images each."""
    values = magnitudes(wide, *size)[code]
    values = np.concatenate([values, -values]) if _SIGNED[code] else values
    if 6 <= code <= 9:
        values = 1 + values
    values = values.repeat(4)
    return Choice(np.full(len(values), code), values)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("wide", [False, True], ids=["rand", "trivial"])
@pytest.mark.parametrize("name", NAMES[:DRAWN])
def test_each_operation_of_each_magnitude_gives_the_same_pixels(name, wide, shape):
    choice = all_strengths(NAMES.index(name), wide, shape[1:])
    assert len(choice.codes) >= 4 * BINS
    images = pictures(len(choice.codes), *shape)
    before = images.clone()
    expected = apply_operations(images, choice)
    result = applied(images, [operations_of(choice, shape[1:], shape[0])])
    assert int((result != expected).sum()) == 0
    assert torch.equal(images, before)
    assert name == "Identity" or (name == "Color" and shape[0] == 1) or not torch.equal(expected, images)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_different_operations_in_one_batch_give_the_same_pixels(shape):
    parts = [all_strengths(code, True, shape[1:]) for code in range(DRAWN)]
    order = np.random.default_rng(0).permutation(sum(len(each.codes) for each in parts))
    choice = Choice(*(np.concatenate(each)[order] for each in zip(*parts, strict=True)))
    images = pictures(len(order), *shape)
    result = applied(images, [operations_of(choice, shape[1:], shape[0])])
    assert int((result != apply_operations(images, choice)).sum()) == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
def test_colour_jitter_gives_the_same_pixels(strength, shape):
    images = pictures(256, *shape)
    choices = draw_colour_jitter(strength, BatchRNG((0, 1), 256))
    expected = functools.reduce(apply_operations, choices, images)
    assert int((applied(images, jitter_operations(choices, shape[0])) != expected).sum()) == 0
    assert not torch.equal(expected, images)
