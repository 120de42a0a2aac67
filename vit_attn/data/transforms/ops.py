"""Image operations on a uint8 batch, with a parameter of its own for every image.

Each has the result of the function of its name in ``torchvision.transforms.v2.functional``, which takes one parameter
for a batch.

References:
    Pillow's ``ImageEnhance`` and ``ImageOps``, whose results torchvision and we reproduce.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from vit_attn.errors import UserError

Pixels = UInt8[Tensor, "B C height width"]
Each = Float[Tensor, " B"]
Matrices = Float32[np.ndarray, "B 6"]


def brightness(images: Pixels, factors: Each) -> Pixels:
    """Multiply the pixels: 0 gives black, 1 the image, more a brighter one."""
    return _to_uint8(images.float().mul_(_by_image(factors)))


def contrast(images: Pixels, factors: Each) -> Pixels:
    """Move the pixels away from the mean grey of their image: 0 gives that grey, 1 the image."""
    return _blend(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: Pixels, factors: Each) -> Pixels:
    """Move the colours away from grey: 0 gives a grey image, 1 the image; one channel has no colour to change."""
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factors)


def sharpness(images: Pixels, factors: Each) -> Pixels:
    """Move the pixels away from their blurred image: 0 gives that, 1 the image; the border stays as it is."""
    if min(images.shape[-2:]) <= 2:
        return images
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner  # whole numbers, so exact on any device
    inner += (sums.div_(13).round_() - inner).mul_(1 - _by_image(factors))
    return _to_uint8(values)


def hue(images: Pixels, shifts: Each) -> Pixels:
    """Turn the colours around their circle by −0.5 to 0.5 of it; one channel has no colour to change."""
    if images.shape[1] == 1:
        return images
    values = images / 255
    high, low = values.amax(dim=1, keepdim=True), values.amin(dim=1, keepdim=True)
    chroma = high - low
    divisor = chroma.masked_fill(chroma == 0, 1)
    red, green, blue = values.split(1, dim=1)
    sixths = torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixths = torch.where(high == red, (green - blue) / divisor, sixths)
    offsets = torch.arange(5, 0, -2, device=images.device).view(1, 3, 1, 1)  # of red, green and blue
    position = (sixths + 6 * _by_image(shifts) + offsets).remainder(6)
    turned = high - chroma * torch.minimum(position, 4 - position).clamp(0, 1)
    return _to_uint8(turned * (256 - 1e-3))  # torchvision's way back to whole numbers


def posterize(images: Pixels, bits: Each) -> Pixels:
    """Keep the highest bits of each pixel, 0 to 8 of them."""
    return images & (256 - torch.exp2(8 - _by_image(bits))).round().to(torch.uint8)


def solarize(images: Pixels, thresholds: Each) -> Pixels:
    """Invert the pixels from the threshold on, 0 to 255."""
    return torch.where(images >= _by_image(thresholds).ceil().to(torch.uint8), ~images, images)


def invert(images: Pixels) -> Pixels:
    """Turn black into white."""
    return ~images


def autocontrast(images: Pixels) -> Pixels:
    """Stretch each channel of each image, so that its darkest pixel is 0 and its brightest 255."""
    low, high = images.amin(dim=(2, 3), keepdim=True).float(), images.amax(dim=(2, 3), keepdim=True).float()
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return _to_uint8((images - torch.where(flat, 0.0, low)) / scale)


def equalize(images: Pixels) -> Pixels:
    """Spread the values of each channel of each image evenly over 0 to 255, by its histogram."""
    flat = images.flatten(2).long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(-1, flat, torch.ones((), dtype=torch.int32, device=images.device).expand_as(flat))
    brightest = histogram.gather(-1, flat.amax(dim=-1, keepdim=True))
    step = (flat.shape[-1] - brightest) // 255
    darker = histogram.cumsum(dim=-1, dtype=torch.int32) - histogram
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, dtype=torch.int32, device=images.device), table)
    return table.to(torch.uint8).gather(-1, flat).view_as(images)


def warp(images: Pixels, matrices: Float[Tensor, "B 6"]) -> Pixels:
    """Apply an affine transform to each image with nearest-neighbour sampling; pixels from outside are 0.

    Args:
        images: The images.
        matrices: Two rows of three numbers each, from the position of a pixel in the result to its position in the
            image, in pixels from the centre, such as :func:`rotation` gives.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    matrix = matrices.unflatten(1, (2, 3))[..., None, None]

    def source(row: int, size: int) -> Float[Tensor, "B height width"]:
        # torchvision's order, since of two pixels equally near the last bit chooses; a matrix product may be in TF32
        across, down, shift = (matrix[:, row] / (size / 2)).unbind(dim=1)
        return (across * x + down * y) + shift

    grid = torch.stack([source(0, width), source(1, height)], dim=-1)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def resized_crop(images: Pixels, crops: Float[Tensor, "B 4"]) -> Pixels:
    """Resize a part of each image to the whole, linearly and with antialiasing.

    Args:
        images: The images.
        crops: Top, left, height and width of each part, in whole pixels.
    """
    top, left, tall, wide = crops.unbind(dim=1)
    rows = _resampling(top, tall, images.shape[-2])[:, None]
    cols = _resampling(left, wide, images.shape[-1])[:, None]
    return _to_uint8((rows @ images.float() @ cols.mT).add_(0.5))


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


def _by_image(parameters: Each) -> Float[Tensor, "B 1 1 1"]:
    return parameters[:, None, None, None]


def _grey(images: Pixels) -> Float[Tensor, "B 1 height width"]:
    if images.shape[1] == 1:
        return images.float()
    if images.shape[1] != 3:
        raise UserError(f"colours can be changed in images of 1 or 3 channels, got {images.shape[1]}")
    red, green, blue = images.split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blend(images: Pixels, other: Float[Tensor, "B 1 _ _"], factors: Each) -> Pixels:
    weight = _by_image(factors)
    return _to_uint8(images.float().mul_(weight).add_(other * (1 - weight)))  # a mixed product is slow on the CPU


def _to_uint8(values: Float[Tensor, "B C height width"]) -> Pixels:
    return values.clamp_(0, 255).to(torch.uint8)
