"""Image files of any kind as the pixels that a network takes."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import EpsImagePlugin, Image, ImageOps, UnidentifiedImageError

from vit_attn.data.images.bit_depth import check_colour, is_deep, to_eight_bits, used_bits
from vit_attn.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that are read, by Pillow's names; a file's content decides, not its ending. None of them runs a program."""
READ = frozenset({*FORMATS, "MPO", None})
"""Formats of pictures that are open: a JPEG of several pictures is MPO, and pixels that are no file have none."""
Image.init()
SUFFIXES = frozenset(ending for ending, form in Image.registered_extensions().items() if form in READ)
"""Endings of the files that are taken for images in a folder: all that Pillow has for these formats."""
MOST_PIXELS = 89_478_485
"""Larger images are refused: a small file can claim any size and fill the memory (Pillow's own bound)."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # Pillow's, besides our line
EpsImagePlugin.gs_binary = False  # readers of data sets open pictures by themselves: Ghostscript is never run


def read_picture(path: str | Path, channels: int = 3, bits: int | None = None) -> Image.Image:
    """The picture in a file, upright, in colour or in grey.

    What is transparent is laid on white, 16 bits a channel become 8, and of an animation the first picture counts.

    Args:
        path: The file.
        channels: 3 for colour, 1 for grey.
        bits: Those that grey pictures of more than 8 use; by default as many as hold the picture's own values.

    Raises:
        UserError: If the file cannot be read as an image; it is named.
    """
    return as_picture(lambda: open_file(path), channels, str(path), bits=bits)


def as_picture(
    open_picture: Callable[[], Image.Image],
    channels: int = 3,
    name: str = "image",
    least: int | None = None,
    bits: int | None = None,
) -> Image.Image:
    """What is opened, upright, in colour or in grey, as :func:`read_picture` has it.

    Args:
        open_picture: Gives the picture, decoded or not.
        channels: 3 for colour, 1 for grey.
        name: What a message calls it.
        least: Shorter side, in pixels, that is enough: a larger JPEG is decoded at a half, quarter or eighth of its
            size, which takes a fraction of the time.
        bits: Those that grey pictures of more than 8 use; by default as many as hold the picture's own values.

    Raises:
        UserError: If it cannot be read as an image; it is named.
    """
    try:
        with open_picture() as file:
            if file.format not in READ:
                raise ValueError(_other_format(file.format))
            if file.width * file.height > MOST_PIXELS:
                raise ValueError(f"{file.width}x{file.height} pixels are more than {MOST_PIXELS:,}")
            if least is not None:
                file.draft(None, (least, least))
            raw, declared = str([tile[3] for tile in getattr(file, "tile", ())]), _declared_bits(file)
            white_is_zero = _is_inverted(file)
            upright: Any = ImageOps.exif_transpose(file)
            check_colour(upright, raw)
            if white_is_zero:
                raise ValueError("0 is white in it (WhiteIsZero), in 16 bits: save it with 0 as black")
            return _in_eight_bits(upright, declared or bits).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # damaged files fail in many ways
        unknown = isinstance(error, UnidentifiedImageError)  # whose message names the file again
        reason = _other_format(None) if unknown else (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} cannot be read as an image: {reason}") from error


def open_file(path: str | Path) -> Image.Image:
    """The picture of a file, not yet decoded."""
    if not Path(path).stat().st_size:
        raise ValueError("the file is empty")
    return open_image(path)


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """The picture of a file, not yet decoded, if it is of one of ``FORMATS``: any other is not even looked at."""
    return Image.open(file, formats=[each for each in FORMATS if each in _readable()])


@cache
def _readable() -> frozenset[str]:
    """Formats that this Pillow reads; older ones know no AVIF."""
    Image.init()
    return frozenset(Image.OPEN)


def _other_format(name: str | None) -> str:
    return f"its kind is {name or 'unknown'}; known are {', '.join(FORMATS)}"


def fit_picture(
    picture: Image.Image, size: tuple[int, int], crop: float = 1.0
) -> UInt8[np.ndarray, "height width channels"]:
    """The centre of a picture, in the shape and size that a network takes.

    Args:
        picture: In colour or in grey.
        size: Height and width in pixels.
        crop: Share of the height and width that is kept around the centre.
    """
    height, width = size
    around = (round(width / crop), round(height / crop))
    fitted = ImageOps.fit(picture, around, Image.Resampling.BICUBIC)
    left, top = (around[0] - width) // 2, (around[1] - height) // 2
    pixels = np.array(fitted.crop((left, top, left + width, top + height)))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _in_eight_bits(picture: Image.Image, bits: int | None) -> Image.Image:
    """Grey, colour or colour behind no transparency; a plain conversion would cut 16 bits off at 255."""
    if picture.mode.startswith(("I", "F")):
        return to_eight_bits(picture, bits)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture)
    return picture


def depth_of(open_picture: Callable[[], Image.Image]) -> int | None:
    """Bits that a grey picture of more than 8 uses; None of any other, and of what cannot be read.

    Args:
        open_picture: Gives the picture, not yet decoded; of others no pixel is read.
    """
    try:
        with open_picture() as file:
            if not is_deep(file) or file.width * file.height > MOST_PIXELS:
                return None
            return _declared_bits(file) or used_bits(file)
    except Exception:  # damaged files fail in many ways; whoever reads it tells
        return None


def _is_inverted(file: Image.Image) -> bool:
    """Whether 0 is white in a TIFF of more than 8 bits, which Pillow turns round in those of 8 bits only."""
    return file.format == "TIFF" and is_deep(file) and getattr(file, "tag_v2", {}).get(262) == 0


def _declared_bits(file: Image.Image) -> int | None:
    """Bits of which white is the largest value, where the format says it: Pillow scales PPM's to all 16."""
    if file.format == "PPM":
        return 16
    depth = getattr(file, "tag_v2", {}).get(258, ()) if file.format == "TIFF" else ()
    return depth[0] if len(depth) == 1 and 8 < depth[0] < 16 else None
