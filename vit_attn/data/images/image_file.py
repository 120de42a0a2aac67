"""Reading of image files of any format into the pixels that a network takes."""

import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import EpsImagePlugin, ExifTags, Image, ImageOps, UnidentifiedImageError

from vit_attn.data.images.bit_depth import check_colour, is_deep, to_eight_bits, used_bits
from vit_attn.errors import UserError

OVERSAMPLING = 2
"""Factor by which a picture is decoded larger than the network's input, so that resizing loses no detail."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that are read, by Pillow's names; a file's content decides, not its extension. None runs a program."""
READ = frozenset({*FORMATS, "MPO", None})
"""Formats that Pillow gives to opened pictures: a JPEG of several pictures is MPO, pixels without a file have none."""
Image.init()
SUFFIXES = frozenset(ending for ending, form in Image.registered_extensions().items() if form in READ)
"""Extensions of image files: all that Pillow has for these formats."""
MAX_PIXELS = 89_478_485
"""Most pixels of an image: a small file can claim any size and fill the memory (Pillow's own bound)."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's, besides our line
EpsImagePlugin.gs_binary = False  # readers of data sets open pictures by themselves: Ghostscript is never run


def read_picture(path: str | Path, channels: int = 3, bits: int | None = None) -> Image.Image:
    """Decode the picture in a file, upright, in colour or in grey.

    Transparent pixels become white, 16 bits per channel become 8, and the first picture of an animation is used.

    Args:
        path: The file.
        channels: 3 for colour, 1 for grey.
        bits: Bits that grey pictures of more than 8 use; by default those that hold the picture's own values.

    Raises:
        UserError: If the file cannot be read as an image; the message has its name.
    """
    return as_picture(lambda: open_file(path), channels, str(path), bits=bits)


def as_picture(
    open_picture: Callable[[], Image.Image],
    channels: int = 3,
    name: str = "image",
    min_side: int | None = None,
    bits: int | None = None,
) -> Image.Image:
    """Decode a picture that is opened, as :func:`read_picture` does.

    Args:
        open_picture: Opens the picture.
        channels: 3 for colour, 1 for grey.
        name: Name of the picture for messages.
        min_side: Shorter side, in pixels, that is enough: a larger JPEG is decoded at a half, quarter or eighth of its
            size, which takes a fraction of the time.
        bits: Bits that grey pictures of more than 8 use; by default those that hold the picture's own values.

    Raises:
        UserError: If it cannot be read as an image; the message has its name.
    """
    try:
        with open_picture() as file:
            if file.format not in READ:
                raise ValueError(_other_format(file.format))
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width}x{file.height} pixels are more than {MAX_PIXELS:,}")
            if min_side is not None:
                file.draft(None, (min_side, min_side))
            raw, declared = str([tile[3] for tile in getattr(file, "tile", ())]), _declared_bits(file)
            white_is_zero = _is_inverted(file)
            file.load()
            is_upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
            upright: Any = file if is_upright else ImageOps.exif_transpose(file)  # which copies all pixels
            check_colour(upright, raw)
            if white_is_zero:
                raise ValueError("0 is white in it (WhiteIsZero), in 16 bits: save it with 0 as black")
            return _in_eight_bits(upright, declared or bits).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # corrupt files fail in many ways
        unknown = isinstance(error, UnidentifiedImageError)  # whose message names the file again
        reason = _other_format(None) if unknown else (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} cannot be read as an image: {reason}") from error


def open_file(path: str | Path) -> Image.Image:
    """Open the picture in a file without decoding it."""
    if not Path(path).stat().st_size:
        raise ValueError("the file is empty")
    return open_image(path)


def open_image(file: str | Path | IO[bytes] | BytesIO) -> Image.Image:
    """Open the picture in a file without decoding it, if it has one of ``FORMATS``; no other decoder is tried."""
    return Image.open(file, formats=[each for each in FORMATS if each in _readable()])


@cache
def _readable() -> frozenset[str]:
    """Formats that this version of Pillow reads; older ones have no AVIF."""
    Image.init()
    return frozenset(Image.OPEN)


def _other_format(name: str | None) -> str:
    return f"its kind is {name or 'unknown'}; known are {', '.join(FORMATS)}"


def fit_picture(
    picture: Image.Image, size: tuple[int, int], crop: float = 1.0
) -> UInt8[np.ndarray, "height width channels"]:
    """Resize a picture and crop its centre to the size that a network takes.

    Args:
        picture: A picture in colour or in grey.
        size: Height and width in pixels.
        crop: Fraction of the height and width that is kept around the centre.
    """
    height, width = size
    around = (round(width / crop), round(height / crop))
    fitted = ImageOps.fit(picture, around, Image.Resampling.BICUBIC)
    left, top = (around[0] - width) // 2, (around[1] - height) // 2
    pixels = np.array(fitted.crop((left, top, left + width, top + height)))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _in_eight_bits(picture: Image.Image, bits: int | None) -> Image.Image:
    """Convert to 8 bits without transparency; a plain conversion would clip 16 bits at 255."""
    if picture.mode.startswith(("I", "F")):
        return to_eight_bits(picture, bits)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture)
    return picture


def depth_of(open_picture: Callable[[], Image.Image]) -> int | None:
    """Bits that a grey picture of more than 8 uses; None for any other, and for a corrupt file.

    Args:
        open_picture: Opens the picture; it is decoded only if it has more than 8 bits.
    """
    try:
        with open_picture() as file:
            if not is_deep(file) or file.width * file.height > MAX_PIXELS:
                return None
            return _declared_bits(file) or used_bits(file)
    except Exception:  # corrupt files fail in many ways; reading it reports the error
        return None


def _is_inverted(file: Image.Image) -> bool:
    """Tell if 0 is white in a TIFF of more than 8 bits; Pillow inverts only those of 8 bits."""
    return file.format == "TIFF" and is_deep(file) and getattr(file, "tag_v2", {}).get(262) == 0


def _declared_bits(file: Image.Image) -> int | None:
    """Bit depth whose largest value is white, if the format states it; Pillow scales PPM's values to 16 bits."""
    if file.format == "PPM":
        return 16
    depth = getattr(file, "tag_v2", {}).get(258, ()) if file.format == "TIFF" else ()
    return depth[0] if len(depth) == 1 and 8 < depth[0] < 16 else None
