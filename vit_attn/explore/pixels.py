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
        note: What the network does not see of the picture, in a sentence; empty if it sees all.
    """

    pixels: UInt8[np.ndarray, "height width channels"]
    note: str


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
    return FittedPicture(fit_picture(picture, card.img_size, card.crop_pct), describe_crop(picture.size, card))


def describe_crop(size: tuple[int, int], card: ModelCard) -> str:
    """Describe what part of a picture a network sees; empty if it sees all.

    Args:
        size: Width and height of the picture in pixels.
        card: Model card of the network.

    >>> card = ModelCard("", {}, None, (3, 32, 32), (), (), crop_pct=0.875)
    >>> describe_crop((96, 64), card)
    'The network sees the centre 56x56 of 96x64 pixels.'
    >>> describe_crop((64, 64), ModelCard("", {}, None, (3, 32, 32), (), ()))
    ''
    """
    (width, height), (rows, cols) = size, card.img_size
    scale = min(width / cols, height / rows) * card.crop_pct  # pixels of the picture a pixel of the input
    seen = max(1, round(cols * scale)), max(1, round(rows * scale))
    if seen == size:
        return ""
    return f"The network sees the centre {seen[0]:,}x{seen[1]:,} of {width:,}x{height:,} pixels."


def in_colour(pixels: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "height width 3"]:
    """Repeat a single channel of grey."""
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels


def encode_png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Encode pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
