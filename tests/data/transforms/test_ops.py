import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.transforms import geometry
from vit_attn.data.transforms import ops as image_ops
from vit_attn.data.transforms.policies import BINS, Choice, apply_operations
from vit_attn.errors import UserError

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 17, 30)]
BINS_BOTH_WAYS = [sign * number / (BINS - 1) for number in range(BINS) for sign in (1, -1)]
FACTORS = [1 + 0.99 * each for each in BINS_BOTH_WAYS]


def noise(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)


def smooth(channels: int, height: int, width: int) -> torch.Tensor:
    rows, cols = torch.linspace(30, 160, height)[:, None], torch.linspace(0, 90, width)
    return torch.stack([rows * (1 - 0.2 * channel) + cols for channel in range(channels)]).to(torch.uint8)


def affine(image: torch.Tensor, shear=(0.0, 0.0), translate=(0, 0), center=None) -> torch.Tensor:
    return tv.affine(image, 0.0, list(translate), 1.0, list(shear), center=center)


def slant(slope: float) -> float:
    return math.degrees(math.atan(slope))


WARPS = {
    "shear_x": (lambda image, value: affine(image, (slant(value), 0.0), center=[0, 0]), [0.3, 0.99]),
    "shear_y": (lambda image, value: affine(image, (0.0, slant(value)), center=[0, 0]), [0.3, 0.99]),
    "translation_x": (lambda image, value: affine(image, translate=(int(value), 0)), [32, 30]),
    "translation_y": (lambda image, value: affine(image, translate=(0, int(value))), [32, 30]),
    "rotation": (tv.rotate, [30, 135]),
}
POINTS = {
    "brightness": (tv.adjust_brightness, FACTORS),
    "contrast": (tv.adjust_contrast, FACTORS),
    "saturation": (tv.adjust_saturation, FACTORS),
    "sharpness": (tv.adjust_sharpness, FACTORS),
    "hue": (tv.adjust_hue, [each / 2 for each in BINS_BOTH_WAYS]),
    "posterize": (lambda image, value: tv.posterize(image, int(value)), range(9)),
    "solarize": (tv.solarize, [255 * number / (BINS - 1) for number in range(BINS)]),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("paint", [noise, smooth])
@pytest.mark.parametrize("name", WARPS)
def test_warps_fetch_the_very_pixels_that_torchvision_fetches(name, paint, shape):
    """But of two pixels equally near, where the last bit of torchvision's matrix product, the processor's, chooses."""
    theirs, ends = WARPS[name]
    values = [(np.trunc if "translation" in name else float)(end * each) for end in ends for each in BINS_BOTH_WAYS]
    image = paint(*shape)
    matrices = torch.from_numpy(getattr(geometry, name)(np.array(values), *shape[1:]))
    ours = geometry.warp(image.expand(len(values), -1, -1, -1), matrices)
    for result, value, matrix in zip(ours, values, matrices, strict=True):
        expected, near = theirs(image, float(value)), nearest(image, matrix)
        assert (near == expected).any(dim=0).all(), value
        assert (near == result).any(dim=0).all(), value
        assert torch.equal(result, expected) or "translation" not in name, value


def nearest(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The pixels that are nearest to where the matrix puts each, or as near as another: (4, C, height, width)."""
    height, width = image.shape[1:]
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2, 0.0], dtype=torch.float64)
    places = (
        torch.stack(
            [
                *torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"),
                torch.ones(1, 1).expand(height, width),
            ]
        ).double()
        - centre[:, None, None]
    )
    x, y = torch.einsum("ij,jhw->ihw", matrix.double().view(2, 3), places) + centre[:2, None, None]
    found = []
    for right, down in itertools.product((-1e-3, 1e-3), repeat=2):
        col, row = (x + right).round().long(), (y + down).round().long()
        inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
        found.append(image[:, row.clamp(0, height - 1), col.clamp(0, width - 1)] * inside)
    return torch.stack(found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("paint", [noise, smooth])
@pytest.mark.parametrize("name", POINTS)
def test_colours_are_within_one_grey_level_of_torchvisions(name, paint, shape):
    theirs, values = POINTS[name]
    image = paint(*shape)
    ours = getattr(image_ops, name)(image.expand(len(values), -1, -1, -1), torch.tensor(list(values)).float())
    theirs = torch.stack([theirs(image, value) for value in values])
    assert_close(ours.int(), theirs.int(), rtol=0, atol=1)
    assert (ours != theirs).float().mean() < 0.02


@pytest.mark.parametrize("shape", [*SHAPES, (3, 2, 5)], ids=str)
@pytest.mark.parametrize("paint", [noise, smooth, lambda *shape: torch.full(shape, 7, dtype=torch.uint8)])
@pytest.mark.parametrize("name", ["autocontrast", "equalize", "invert"])
def test_operations_without_a_parameter_equal_torchvisions(name, paint, shape):
    images = torch.stack([paint(*shape), paint(*shape) // 3])
    theirs = torch.stack([getattr(tv, name)(image) for image in images])
    assert torch.equal(getattr(image_ops, name)(images), theirs)


@pytest.mark.parametrize(
    ("name", "nothing"),
    [("brightness", 1), ("contrast", 1), ("saturation", 1), ("sharpness", 1), ("posterize", 8), ("solarize", 255)],
)
def test_identity_parameters_leave_images_as_they_are(name, nothing):
    images = torch.stack([noise(3, 9, 14) for _ in range(5)]).clamp(max=254)  # 255 is not below any threshold
    assert torch.equal(getattr(image_ops, name)(images, torch.full((5,), float(nothing))), images)
    still = np.zeros(5)
    for matrices in ("rotation", "shear_x", "shear_y", "translation_x", "translation_y"):
        assert torch.equal(geometry.warp(images, torch.from_numpy(getattr(geometry, matrices)(still, 9, 14))), images)


def test_tiny_images_have_nothing_to_sharpen():
    images = noise(3, 2, 5)[None]
    assert torch.equal(image_ops.sharpness(images, torch.tensor([1.9])), images)


def test_colours_of_two_channels_are_refused():
    with pytest.raises(UserError, match="1 or 3 channels, got 2"):
        image_ops.saturation(noise(2, 8, 8)[None], torch.ones(1))


def test_each_image_has_an_operation_of_its_own_and_the_order_does_not_matter():
    codes, shuffle = np.arange(16), torch.randperm(16)
    values = np.array([0, 0.2, 0.2, 3, 3, 20, 1.5, 1.5, 1.5, 1.5, 3, 99, 0, 0, 0.2, 0])
    images = torch.stack([noise(3, 16, 20) for _ in range(16)])
    before = images.clone()
    whole = apply_operations(images, Choice(codes, values))
    assert torch.equal(images, before)
    assert torch.equal(apply_operations(images[shuffle], Choice(codes[shuffle], values[shuffle])), whole[shuffle])
    for i in range(16):
        assert torch.equal(
            apply_operations(images[i : i + 1], Choice(codes[i : i + 1], values[i : i + 1]))[0], whole[i]
        )
    assert [torch.equal(whole[i], images[i]) for i in range(16)] == [True] + [False] * 15
