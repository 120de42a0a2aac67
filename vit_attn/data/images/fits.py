"""Fits of a picture of any shape to a network: its middle, with padding around it, or at its own shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_attn.data.images.image_file import fit_picture

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, from the upper left corner."""

LEAST_STRETCH = 1.005
"""Least stretch that is said; one of less rounds to 0%."""


@dataclass(frozen=True)
class SeenPicture:
    """Picture as a network sees it.

    Args:
        pixels: Pixels in 0..255.
        box: Part of the upright picture that is seen, in its own pixels.
        size: Height and width of the upright picture in pixels.
        note: Sentence on what is seen, such as ``1600x900, the middle 900x900 is seen: 44% is cut off``.
        content: Part of ``pixels`` that is picture; the rest is padding.
    """

    pixels: UInt8[np.ndarray, "height width channels"]
    box: Box
    size: tuple[int, int]
    note: str
    content: tuple[int, int, int, int]

    @property
    def cut(self) -> float:
        """Fraction of the picture's area that is cut off."""
        left, top, right, bottom = self.box
        return round(1 - (right - left) * (bottom - top) / (self.size[0] * self.size[1]), 6)  # exactly 0 if none is

    @property
    def is_padded(self) -> bool:
        """Whether some pixels are padding."""
        return self.content != _whole_of(self.pixels)

    @property
    def stretch(self) -> float:
        """Factor by which one side is longer than in the picture, at least 1."""
        (left, top, right, bottom), inner = self.box, self.content
        ratio = (inner[2] - inner[0]) / (inner[3] - inner[1]) * (bottom - top) / (right - left)
        return max(ratio, 1 / ratio)

    @property
    def is_reshaped(self) -> bool:
        """Whether part of the picture is cut off, padding is added, or it is seen stretched or as no square."""
        height, width = self.pixels.shape[:2]
        return self.cut > 0 or self.is_padded or height != width or self.stretch >= LEAST_STRETCH


def seen_as_is(pixels: UInt8[np.ndarray, "height width channels"]) -> SeenPicture:
    """Return pixels that already have the network's size as a picture that is seen whole."""
    height, width = pixels.shape[:2]
    whole = _whole_of(pixels)
    return SeenPicture(pixels, (0.0, 0.0, width, height), (height, width), f"{width}x{height}, seen whole", whole)


def crop(picture: Image.Image, size: tuple[int, int], crop_pct: float = 1.0) -> SeenPicture:
    """Fit the middle of a picture, as :func:`vit_attn.data.images.image_file.fit_picture` does.

    Args:
        picture: A picture in colour or in grey.
        size: Height and width of the network's images in pixels.
        crop_pct: Fraction of the height and width that is kept around the centre.
    """
    pixels = fit_picture(picture, size, crop_pct)
    box = _crop_box(picture, size, crop_pct)
    seen = SeenPicture(pixels, box, (picture.height, picture.width), "", _whole_of(pixels))
    middle = f"the middle {_by(max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1])))} is seen"
    said = f"{middle}: {percent(seen.cut)} is cut off" if seen.cut else "seen whole"
    return _noted(seen, said)


def letterbox(picture: Image.Image, size: tuple[int, int], mean: Sequence[float]) -> SeenPicture:
    """Fit the whole picture, undistorted, in the middle of padding of the mean colour.

    Args:
        picture: A picture in colour or in grey.
        size: Height and width of the network's images in pixels.
        mean: Mean of the training images by channel, for pixels in [0, 1].
    """
    height, width = size
    scale = min(width / picture.width, height / picture.height)
    inner = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    content = (left, top, left + inner[0], top + inner[1])
    resized = _pixels(picture.resize(inner, Image.Resampling.BICUBIC))
    pixels = np.tile(np.round(255 * np.array(mean)).astype(np.uint8), (height, width, 1))
    pixels[content[1] : content[3], content[0] : content[2]] = resized
    seen = SeenPicture(pixels, _all_of(picture), (picture.height, picture.width), "", content)
    rest = f" in {_by(*inner)} of {_by(width, height)} pixels, the rest is padding"
    return _noted(seen, "seen whole" + rest * seen.is_padded)


def whole(picture: Image.Image, patch: tuple[int, int], patches: int) -> SeenPicture:
    """Resize the whole picture to a grid of patches of nearly its own shape.

    Args:
        picture: A picture in colour or in grey.
        patch: Height and width of a patch in pixels.
        patches: Largest number of patches.
    """
    rows, cols = grid_of((picture.height, picture.width), patch, patches)
    width, height = cols * patch[1], rows * patch[0]
    pixels = _pixels(picture.resize((width, height), Image.Resampling.BICUBIC))
    seen = SeenPicture(pixels, _all_of(picture), (picture.height, picture.width), "", _whole_of(pixels))
    said = f"seen whole in {rows} row{'s' * (rows > 1)} of {cols} patch{'es' * (cols > 1)}"
    if seen.stretch >= 2:
        said += f", stretched {seen.stretch:,.0f} times"
    elif seen.stretch >= LEAST_STRETCH:
        said += f", stretched by {seen.stretch - 1:.0%}"
    return _noted(seen, said)


@lru_cache(maxsize=1024)
def grid_of(size: tuple[int, int], patch: tuple[int, int], patches: int) -> tuple[int, int]:
    """Choose the rows and columns of patches that stretch a picture least.

    Of the grids of at most ``patches`` patches to which no row and column can be added. So a side has one patch at
    least and ``patches`` at most: a picture of 1x10,000 pixels becomes one row of all patches.

    Args:
        size: Height and width of the picture.
        patch: Height and width of a patch.
        patches: Largest number of patches.

    >>> grid_of((900, 1600), (16, 16), 196), grid_of((500, 500), (16, 16), 196), grid_of((1, 10_000), (16, 16), 196)
    ((10, 18), (14, 14), (1, 196))
    """
    shape = size[1] / patch[1] * patch[0] / size[0]  # columns for each row
    nearest = ((rows, cols) for rows in range(1, patches + 1) for cols in _floor_ceil(rows * shape))
    around = {(rows, min(max(cols, 1), patches // rows)) for rows, cols in nearest}
    around |= {(rows, patches // rows) for rows in range(1, patches + 1)}
    largest = [(rows, cols) for rows, cols in around if (rows + 1) * (cols + 1) > patches]
    return min(largest, key=lambda grid: (round(abs(math.log(grid[1] / grid[0] / shape)), 9), -grid[0] * grid[1]))


def percent(fraction: float) -> str:
    """Write a fraction above 0 and below 1 in percent, never as 0% or 100%.

    >>> percent(0.437), percent(0.0001), percent(0.9998)
    ('44%', 'less than 1%', 'more than 99%')
    """
    if fraction < 0.005:
        return "less than 1%"
    return f"{fraction:.0%}" if fraction < 0.995 else "more than 99%"


def _floor_ceil(number: float) -> tuple[int, int]:
    return math.floor(number), math.ceil(number)


def _crop_box(picture: Image.Image, size: tuple[int, int], crop_pct: float) -> Box:
    """Compute the part of the picture that ``fit_picture`` keeps."""
    around = tuple(round(side / crop_pct) for side in size)
    scale = min(picture.height / around[0], picture.width / around[1])  # pixels of the picture a resized pixel
    first = [(full - scale * side) / 2 for full, side in zip((picture.height, picture.width), around, strict=True)]
    top, left = (start + scale * ((outer - side) // 2) for start, outer, side in zip(first, around, size, strict=True))
    return left, top, left + scale * size[1], top + scale * size[0]


def _noted(seen: SeenPicture, said: str) -> SeenPicture:
    height, width = seen.size
    return replace(seen, note=f"{_by(width, height)}, {said}")


def _pixels(picture: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
    pixels = np.array(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _whole_of(pixels: np.ndarray) -> tuple[int, int, int, int]:
    return 0, 0, pixels.shape[1], pixels.shape[0]


def _all_of(picture: Image.Image) -> Box:
    return 0.0, 0.0, float(picture.width), float(picture.height)


def _by(width: int, height: int) -> str:
    return f"{width}x{height}"
