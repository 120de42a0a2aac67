"""Affine transforms and resized crops of a uint8 batch, with parameters of its own for every image.

References:
    ``affine``, ``rotate`` and ``resized_crop`` in ``torchvision.transforms.v2.functional``.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from vit_attn.data.transforms.ops import Each, Pixels, Values, to_uint8

Matrices = Float32[np.ndarray, "B 6"]


def warp(images: Pixels, matrices: Float[Tensor, "B 6"]) -> Pixels:
    """Apply an affine transform to each image with nearest-neighbour sampling; pixels from outside are 0.

    Args:
        images: The images.
        matrices: Two rows of three numbers each, from the position of a pixel in the result to its position in the
            image, in pixels from the centre, such as :func:`rotation` gives.
    """
    height, width = images.shape[-2:]
    across, down = matrices.unflatten(1, (2, 3)).unbind(dim=1)
    return move(images.float(), torch.stack([across / (width / 2), down / (height / 2)], dim=1)).to(torch.uint8)


def move(values: Values, matrices: Float[Tensor, "B 2 3"]) -> Values:
    """Do the arithmetic of :func:`warp`.

    Args:
        values: Pixels.
        matrices: As there, but from pixels to positions of which the image's sides are at −1 and 1.
    """
    height, width = values.shape[-2:]
    across, down, shift = matrices[..., None, None].unbind(dim=2)
    x = torch.arange(-(width - 1) / 2, width / 2, device=values.device)
    y = torch.arange(-(height - 1) / 2, height / 2, device=values.device)[:, None]
    # torchvision's order, since of two pixels equally near the last bit chooses; a matrix product may be in TF32
    positions = (across * x + down * y) + shift
    if torch.compiler.is_compiling():
        return nearest(values, positions)
    return F.grid_sample(values, positions.permute(0, 2, 3, 1), mode="nearest", align_corners=False)


def nearest(values: Values, positions: Float[Tensor, "B 2 height width"]) -> Values:
    """Fetch the pixels nearest to positions as ``grid_sample`` does, whose compiled form breaks ties otherwise."""
    height, width = values.shape[-2:]
    x, y = (
        ((each + 1) * (size / 2) - 0.5).round() for each, size in zip(positions.unbind(1), (width, height), strict=True)
    )
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()[:, None]
    fetched = values.flatten(2).gather(-1, index.flatten(2).expand(-1, values.shape[1], -1))
    return fetched.view_as(values) * inside[:, None]


def resized_crop(images: Pixels, crops: Float[Tensor, "B 4"]) -> Pixels:
    """Resize a part of each image to the whole, linearly and with antialiasing.

    Args:
        images: The images.
        crops: Top, left, height and width of each part, in whole pixels.
    """
    top, left, tall, wide = crops.unbind(dim=1)
    rows = _resampling(top, tall, images.shape[-2])[:, None]
    cols = _resampling(left, wide, images.shape[-1])[:, None]
    return to_uint8((rows @ images.float() @ cols.mT).add_(0.5))


def _resampling(start: Each, length: Each, size: int) -> Float[Tensor, "B size size"]:
    """Weight of each pixel (column) in each pixel of the result (row), along one axis."""
    pixel = torch.arange(size, device=start.device) + 0.5
    scale = (length / size)[:, None, None]
    centre = start[:, None, None] + pixel[:, None] * scale
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=-1, keepdim=True)


def rotation(degrees: np.ndarray, height: int, width: int) -> Matrices:
    """Matrices for :func:`warp` that turn images about their centres, counter-clockwise."""
    angle, zero = np.radians(degrees), np.zeros(len(degrees))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos, -sin, zero, sin, cos, zero], axis=1).astype(np.float32)


def shear_x(slopes: np.ndarray, height: int, width: int) -> Matrices:
    """Matrices for :func:`warp` that shift each row by ``slope`` times its distance from the top left corner."""
    one, zero = np.ones(len(slopes)), np.zeros(len(slopes))
    return np.stack([one, slopes, slopes * height / 2, zero, one, zero], axis=1).astype(np.float32)


def shear_y(slopes: np.ndarray, height: int, width: int) -> Matrices:
    """Matrices for :func:`warp` that shift each column by ``slope`` times its distance from the top left corner."""
    one, zero = np.ones(len(slopes)), np.zeros(len(slopes))
    return np.stack([one, zero, zero, slopes, one, slopes * width / 2], axis=1).astype(np.float32)


def translation_x(pixels: np.ndarray, height: int, width: int) -> Matrices:
    """Matrices for :func:`warp` that shift images to the right."""
    one, zero = np.ones(len(pixels)), np.zeros(len(pixels))
    return np.stack([one, zero, -pixels, zero, one, zero], axis=1).astype(np.float32)


def translation_y(pixels: np.ndarray, height: int, width: int) -> Matrices:
    """Matrices for :func:`warp` that shift images downward."""
    one, zero = np.ones(len(pixels)), np.zeros(len(pixels))
    return np.stack([one, zero, zero, zero, one, -pixels], axis=1).astype(np.float32)
