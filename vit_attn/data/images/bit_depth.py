"""Conversion of pictures of more than 8 bits to 8: which of their values is white.

A file of 16 bits does not state how many of them are used: 12 from one camera or scanner, all 16 from another. In a
data set the same value must be the same shade, so the depth is found once, from the training pictures, and stored with
the network. (PNG's ``sBIT`` is the depth before scaling to 16 bits, and TIFF's ``MaxSampleValue`` must not be used for
display, so neither states it.)
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_attn.checkpoints.model_card import BITS

Bits = Literal[8, 10, 12, 14, 16]
NONE_SEEN = 0
"""In place of a depth: none of the sampled pictures has more than 8 bits."""
MIN_UPPER_BYTE = 64
"""Smallest upper byte that a colour picture of 16 bits must reach: it then uses 15 bits or more."""


def is_deep(picture: Image.Image) -> bool:
    """Tell if a grey picture has more than 8 bits."""
    return picture.mode.startswith("I")


def bits_of(highest: int) -> int:
    """Smallest bit depth that holds a value.

    >>> bits_of(255), bits_of(4000), bits_of(4096)
    (8, 12, 14)
    """
    return next(bits for bits in BITS if highest < 2**bits)


def used_bits(picture: Image.Image) -> int:
    """Smallest bit depth that holds all values of a grey picture.

    Raises:
        ValueError: If some are below 0, or above what 16 bits hold.
    """
    values = np.asarray(picture)
    low, high = int(values.min(initial=65535)), int(values.max(initial=0))
    if low < 0 or high >= 2**16:
        raise ValueError(f"its values go from {low} to {high}, not within 0 and 65,535: save it in 8 or 16 bits")
    return bits_of(high)


def to_eight_bits(picture: Image.Image, bits: int | None) -> Image.Image:
    """Convert a grey picture of more than 8 bits to 8.

    Args:
        picture: Integers, or floats from 0 for black to 1 for white.
        bits: Depth whose largest value is white; by default the smallest that holds the picture's own values.

    Raises:
        ValueError: If a value is above white, or if white cannot be determined.
    """
    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F":
        if not (np.isfinite(values).all() and values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
            raise ValueError("its floating-point values are not all within 0 and 1: save it in 8 or 16 bits")
        if 0 < values.max(initial=0) <= 1 / 16 and np.allclose(values * 65535, np.round(values * 65535), atol=1e-2):
            raise ValueError(
                "its floating-point values are those of 12 bits or fewer, divided by 65,535: divide by the largest "
                "that was possible"
            )
        return _shades(values, 1)
    used = used_bits(picture)
    if bits == NONE_SEEN:
        if used < 16:
            raise ValueError(
                f"it is of 16 bits and uses {used}, unlike the sampled ones: set --data.bits to those used"
            )
        bits = 16
    if bits is not None and used > bits:
        raise ValueError(
            f"its values go up to {int(values.max())}, above those of {bits} bits, by which the training images are "
            "read: --data.bits says how many are used"
        )
    shades = _shades(values, 2 ** (bits or used) - 1)
    shades.info["bits"] = bits or used
    return shades


def _shades(values: np.ndarray, white: int) -> Image.Image:
    shades: UInt8[np.ndarray, "height width"] = (values / white * 255).round().astype(np.uint8)
    return Image.fromarray(shades)


def check_colour(picture: Image.Image, raw: str) -> None:
    """Refuse colour of 16 bits per channel that uses the lower bits only, since Pillow keeps the upper eight.

    Args:
        picture: The decoded picture.
        raw: Pillow's raw modes of the file.

    Raises:
        ValueError: If so.
    """
    if ";16" not in raw or picture.mode not in ("RGB", "RGBA", "LA"):
        return
    bands = zip(picture.getbands(), picture.split(), strict=True)
    if max(int(np.asarray(band).max(initial=0)) for name, band in bands if name != "A") < MIN_UPPER_BYTE:
        raise ValueError("it has 16 bits a channel and uses 14 or fewer, of which little would be left: save it in 8")
