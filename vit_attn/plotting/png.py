"""PNG files of figures, in half of the time that Pillow takes at the same size.

Pillow tries five filters a row. In a figure most rows are as the row above, so that the difference to it is best.
"""

import struct
import zlib

import numpy as np

from vit_attn.plotting.scale import Picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
UP = 2
"""Filter of a row of which the differences to the row above are stored."""


def encode_png(picture: Picture) -> bytes:
    """Encode a picture, fast rather than small.

    Args:
        picture: Pixels.
    """
    height, width, _ = picture.shape
    pixels = picture.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0], rows[0, 1:] = UP, pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
