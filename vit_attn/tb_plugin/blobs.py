"""Encoding of a layer's maps: uint8 of the square root, relative to the row's maximum. See docs/format.md."""

import struct
import zlib

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError

VERSION = 1
"""Version of the format: the bytes below, the index and the tags."""
MAGIC = b"VATN"
HEADER = struct.Struct("<4sHHII")
"""Magic, version, heads, tokens, CRC-32 of what follows: 16 bytes, little endian."""


def encode_maps(maps: Float[np.ndarray, "H N N"]) -> bytes:
    """Encode a layer's maps: header, each row's maximum as float32, each cell as uint8.

    The square root keeps the small cells of a row that has a sink: every cell is exact to 0.4 % of its row's maximum.
    The maximum of a row with a cell that is not finite is NaN, and the page shows the row as unknown.

    Raises:
        UserError: If a cell is negative.
    """
    peaks = maps.max(axis=-1, keepdims=True).astype(np.float32)  # NaN if one is
    known = np.isfinite(peaks)
    if maps.size and np.nanmin(maps, initial=0.0) < 0:
        raise UserError(f"maps must not be negative, got a minimum of {np.nanmin(maps)}")
    fractions = np.divide(maps, peaks, out=np.zeros(maps.shape, np.float32), where=known & (peaks > 0))
    body = np.where(known, peaks, np.nan).astype("<f4").tobytes()
    body += np.rint(255 * np.sqrt(fractions)).astype(np.uint8).tobytes()
    heads, tokens = maps.shape[:2]
    return HEADER.pack(MAGIC, VERSION, heads, tokens, zlib.crc32(body)) + body


def check_maps(blob: bytes) -> tuple[int, int]:
    """Return heads and tokens of an encoded layer.

    Raises:
        UserError: If the bytes are of another version, corrupt or cut off.
    """
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise UserError(f"not a layer of maps: {len(blob)} bytes that begin with {blob[:4]!r}")
    _, version, heads, tokens, checksum = HEADER.unpack_from(blob)
    if version != VERSION:
        raise UserError(f"maps of format version {version}; this version of vit_attn reads {VERSION}")
    expected = HEADER.size + heads * tokens * (4 + tokens)
    if len(blob) != expected:
        raise UserError(f"corrupt maps: {len(blob)} bytes instead of {expected} for {heads} heads and {tokens} tokens")
    if zlib.crc32(memoryview(blob)[HEADER.size :]) != checksum:
        raise UserError(f"corrupt maps: wrong checksum over {len(blob)} bytes")
    return heads, tokens


def decode_maps(blob: bytes) -> Float[np.ndarray, "H N N"]:
    """Decode a layer's maps, in float32."""
    heads, tokens = check_maps(blob)
    peaks = np.frombuffer(blob, "<f4", heads * tokens, HEADER.size).reshape(heads, tokens, 1)
    codes = np.frombuffer(blob, np.uint8, offset=HEADER.size + peaks.nbytes).reshape(heads, tokens, tokens)
    return (peaks * (codes.astype(np.float32) / 255) ** 2).astype(np.float32)
