"""Operations on the colours of a uint8 batch, with a parameter of its own for every image.

Each has the result of the function of its name in ``torchvision.transforms.v2.functional``, which takes one parameter
for a batch. Those on :data:`Values` do the arithmetic of the same operations, and change their argument where they can.

References:
    Pillow's ``ImageEnhance`` and ``ImageOps``, whose results torchvision and we reproduce.
"""

import torch
from jaxtyping import Float, Float32, Int32, Shaped, UInt8
from torch import Tensor

from vit_attn.errors import UserError

Pixels = UInt8[Tensor, "B C height width"]
Values = Float32[Tensor, "B C height width"]
"""Pixels as floating-point numbers, in 0..255."""
Each = Float[Tensor, " B"]


def brightness(images: Pixels, factors: Each) -> Pixels:
    """Multiply the pixels: 0 gives black, 1 the image, more a brighter one."""
    return to_uint8(images.float().mul_(by_image(factors)))


def contrast(images: Pixels, factors: Each) -> Pixels:
    """Move the pixels away from the mean grey of their image: 0 gives that grey, 1 the image."""
    return _blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: Pixels, factors: Each) -> Pixels:
    """Move the colours away from grey: 0 gives a grey image, 1 the image; one channel has no colour to change."""
    return images if images.shape[1] == 1 else _blend(images, grey(images), factors)


def sharpness(images: Pixels, factors: Each) -> Pixels:
    """Move the pixels away from their blurred image: 0 gives that, 1 the image; the border stays as it is."""
    return to_uint8(blur(images.float(), 1 - factors))


def blur(values: Values, weights: Each) -> Values:
    """Mix the pixels with their blurred image, by the weight of that; the border stays as it is."""
    if min(values.shape[-2:]) <= 2:
        return values
    inner = values[..., 1:-1, 1:-1]
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4)  # whole numbers, so exact
    inner += (sums.div_(13).round_() - inner).mul_(by_image(weights))
    return values


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
    position = (sixths + 6 * by_image(shifts) + offsets).remainder(6)
    turned = high - chroma * torch.minimum(position, 4 - position).clamp(0, 1)
    return to_uint8(turned * (256 - 1e-3))  # torchvision's way back to whole numbers


def posterize(images: Pixels, bits: Each) -> Pixels:
    """Keep the highest bits of each pixel, 0 to 8 of them."""
    return images & (256 - torch.exp2(8 - by_image(bits))).round().to(torch.uint8)


def solarize(images: Pixels, thresholds: Each) -> Pixels:
    """Invert the pixels from the threshold on, 0 to 255."""
    return invert_from(images, by_image(thresholds).ceil().to(torch.uint8))


def invert_from(images: Pixels, thresholds: Shaped[Tensor, "B 1 1 1"]) -> Pixels:
    """Turn black into white in the pixels from the threshold on; from 256 on none is."""
    return torch.where(images >= thresholds, ~images, images)


def invert(images: Pixels) -> Pixels:
    """Turn black into white."""
    return ~images


def autocontrast(images: Pixels) -> Pixels:
    """Stretch each channel of each image, so that its darkest pixel is 0 and its brightest 255."""
    return to_uint8(stretch(images.float(), images))


def stretch(values: Values, images: Pixels, flattest: int | UInt8[Tensor, "B 1 1"] = 0) -> Values:
    """Do the arithmetic of :func:`autocontrast`.

    Args:
        values: Pixels.
        images: The same as whole numbers.
        flattest: Difference of the brightest and the darkest pixel up to which a channel stays as it is: 0, or 255 for
            the images that are not to change.
    """
    low, high = torch.aminmax(images.flatten(2), dim=-1, keepdim=True)
    span = high - low
    flat = span <= flattest
    scale = (span * (1 / 255)).masked_fill_(flat, 1)
    return values.sub_(low.masked_fill_(flat, 0)[..., None]).div_(scale[..., None])


def equalize(images: Pixels, divisor: int | Int32[Tensor, "B 1 1"] = 255) -> Pixels:
    """Spread the values of each channel of each image evenly over 0 to 255, by its histogram.

    Args:
        images: The images.
        divisor: 255, or for each image 255 or a number above that of its pixels, which leaves it as it is.
    """
    flat = images.flatten(2).long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(-1, flat, torch.ones((), dtype=torch.int32, device=images.device).expand_as(flat))
    darker = histogram.cumsum(dim=-1, dtype=torch.int32) - histogram
    step = darker.gather(-1, flat.amax(dim=-1, keepdim=True)) // divisor
    table = (darker.add_(step // 2) // step.clamp(min=1)).clamp_(max=255).to(torch.uint8)
    return torch.where((step == 0)[..., None], images, table.gather(-1, flat).view_as(images))


def by_image(parameters: Shaped[Tensor, " B"]) -> Shaped[Tensor, "B 1 1 1"]:
    """A number for each image, to be broadcast over its pixels."""
    return parameters[:, None, None, None]


def grey(images: Pixels) -> Float[Tensor, "B 1 height width"]:
    """Brightness of each pixel, in whole numbers.

    Raises:
        UserError: If the images have neither 1 channel nor 3.
    """
    if images.shape[1] == 1:
        return images.float()
    if images.shape[1] != 3:
        raise UserError(f"colours can be changed in images of 1 or 3 channels, got {images.shape[1]}")
    red, green, blue = images.split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blend(images: Pixels, other: Float[Tensor, "B 1 _ _"], factors: Each) -> Pixels:
    weight = by_image(factors)
    return to_uint8(images.float().mul_(weight).add_(other * (1 - weight)))  # a mixed product is slow on the CPU


def to_uint8(values: Values) -> Pixels:
    """Pixels of values that may be out of range."""
    return values.clamp_(0, 255).to(torch.uint8)
