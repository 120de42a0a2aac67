"""Pixels of a picture as a network takes them, with a note on what it does not see."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_attn.data.images.fits import SeenPicture
from vit_attn.data.images.image_file import as_picture, open_file, open_image
from vit_attn.inference.images import seen_picture
from vit_attn.inference.network import TrainedNetwork

Opener = Callable[[], Image.Image]
"""Opens a picture without decoding it."""


def opener_of(source: Path | bytes) -> Opener:
    """Return what opens the picture in a file, or in the bytes of one."""
    return (lambda: open_image(io.BytesIO(source))) if isinstance(source, bytes) else (lambda: open_file(source))


def fit_to_network(open_picture: Opener, name: str, network: TrainedNetwork, fit: str) -> SeenPicture:
    """Decode a picture and fit it to a network, as ``predict`` and ``attend`` do.

    Args:
        open_picture: Opens the picture.
        name: Name of the picture, for messages.
        network: The network.
        fit: One of ``FITS``.

    Raises:
        UserError: If it cannot be read as an image.
    """
    card = network.card
    return seen_picture(as_picture(open_picture, card.in_chans, name, bits=card.bits), network, fit)


def region_of(seen: SeenPicture) -> list[float]:
    """Return top, left, height and width of the part of a picture that a network sees, as fractions of the picture."""
    (left, top, right, bottom), (height, width) = seen.box, seen.size
    return [round(each, 3) for each in (top / height, left / width, (bottom - top) / height, (right - left) / width)]


def note_of(seen: SeenPicture) -> str:
    """Return a sentence on what the network sees of a picture; empty if it sees a square as it is."""
    return f"{seen.note[0].upper()}{seen.note[1:]}." if seen.is_reshaped else ""


def in_colour(pixels: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "height width 3"]:
    """Repeat a single channel of grey."""
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels


def encode_png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Encode pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
