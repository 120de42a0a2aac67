"""Pixels of a picture as a network takes them, with a note on what it does not see."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.data.images.image_file import as_picture, fit_picture, open_file, open_image


@dataclass(frozen=True)
class FittedPicture:
    """Picture in the size and channels of a network.

    Args:
        pixels: Pixels in 0..255.
        size: Width and height of the whole picture in pixels.
        seen: Width and height of the part around its centre that the network sees.
    """

    pixels: UInt8[np.ndarray, "height width channels"]
    size: tuple[int, int]
    seen: tuple[int, int]

    @property
    def note(self) -> str:
        """What the network does not see of the picture, in a sentence; empty if it sees all."""
        (width, height), (cols, rows) = self.size, self.seen
        if self.seen == self.size:
            return ""
        return f"The network sees the centre {cols:,}x{rows:,} of {width:,}x{height:,} pixels."

    @property
    def crop(self) -> list[float]:
        """Top, left, height and width of the part that is seen, as fractions of the picture."""
        width, height = (part / whole for part, whole in zip(self.seen, self.size, strict=True))
        return [round(each, 3) for each in ((1 - height) / 2, (1 - width) / 2, height, width)]


Opener = Callable[[], Image.Image]
"""Opens a picture without decoding it."""


def opener_of(source: Path | bytes) -> Opener:
    """Return what opens the picture in a file, or in the bytes of one."""
    return (lambda: open_image(io.BytesIO(source))) if isinstance(source, bytes) else (lambda: open_file(source))


def fit_to_network(open_picture: Opener, name: str, card: ModelCard) -> FittedPicture:
    """Decode a picture and fit it to a network, as ``predict`` and ``attend`` do.

    Args:
        open_picture: Opens the picture.
        name: Name of the picture, for messages.
        card: Model card of the network.

    Raises:
        UserError: If it cannot be read as an image.
    """
    picture = as_picture(open_picture, card.in_chans, name, bits=card.bits)
    pixels = fit_picture(picture, card.img_size, card.crop_pct)
    return FittedPicture(pixels, picture.size, seen_size(picture.size, card))


def seen_size(size: tuple[int, int], card: ModelCard) -> tuple[int, int]:
    """Return width and height of the part of a picture that a network sees.

    Args:
        size: Width and height of the picture in pixels.
        card: Model card of the network.

    >>> seen_size((96, 64), ModelCard("", {}, None, (3, 32, 32), (), (), crop_pct=0.875))
    (56, 56)
    """
    (width, height), (rows, cols) = size, card.img_size
    scale = min(width / cols, height / rows) * card.crop_pct  # pixels of the picture a pixel of the input
    return max(1, round(cols * scale)), max(1, round(rows * scale))


def in_colour(pixels: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "height width 3"]:
    """Repeat a single channel of grey."""
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels


def encode_png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Encode pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
