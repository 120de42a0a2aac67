"""Encoding of a layer's maps: square root relative to the row's maximum, in 8 bits, deflated. See docs/format.md."""

import struct
import zlib

import numpy as np
from jaxtyping import Float, UInt8

from vit_attn.errors import UserError

VERSION = 2
"""Version of the format that is written: the bytes below, the index and the tags."""
READABLE = (1, 2)
"""Versions that are read; maps of version 1 are not deflated."""
MAGIC = b"VATN"
HEADER = struct.Struct("<4sHHII")
"""Magic, version, heads, tokens, CRC-32 of what follows the header: 16 bytes, little endian."""
LENGTH = struct.Struct("<I")
"""Bytes of the deflated codes; between header and maxima in version 2, which the checksum does not cover."""
LEVELS = 255
"""Levels of a code above 0, unless ``max_bits`` asks for fewer."""
SMALLEST = np.finfo(np.float32).tiny
"""Number below which the reciprocal may overflow, as of relevance that gradients barely reach."""
SPARE_BITS = 0.02
"""Bits a cell that an estimate of the size may be wrong by without another try."""
BYTES_BEYOND_CODES = HEADER.size + LENGTH.size + 128
"""Bytes of a layer on top of its maxima and codes: headers, and what a deflated stream takes however random it is."""


def encode_maps(maps: Float[np.ndarray, "H N N"], max_bits: float = 8) -> bytes:
    """Encode a layer's maps: header, each row's maximum as float32, each cell as a deflated uint8.

    The square root keeps the small cells of a row that has a sink: every cell is exact to 0.4 % of its row's maximum.
    The maximum of a row with a cell that is not finite is NaN, and the page shows the row as unknown.

    Args:
        maps: Attention weights or relevance, rows are queries.
        max_bits: Mean bits of a cell. Maps that deflate to more are encoded in fewer levels, with a larger error: 100 %
            of the row's maximum divided by the number of levels, and 0.4 % for the code.

    Raises:
        UserError: If a cell is negative.
    """
    maps = np.ascontiguousarray(maps, np.float32)
    peaks = maps.max(axis=-1, keepdims=True, initial=0.0)  # NaN if one is
    if maps.size and (least := np.fmin.reduce(maps, axis=None)) < 0:
        raise UserError(f"maps must not be negative, got a minimum of {least}")
    known = np.isfinite(peaks)
    tiny = (peaks > 0) & (peaks < SMALLEST)
    factor = np.divide(1, peaks, out=np.zeros_like(peaks), where=known & (peaks >= SMALLEST))
    with np.errstate(invalid="ignore"):
        roots = np.sqrt(np.multiply(maps, factor), dtype=np.float32)
    if tiny.any():
        roots[tiny[..., 0]] = np.sqrt(maps[tiny[..., 0]] / peaks[tiny[..., 0]])
    if not known.all():
        roots[~known[..., 0]] = 0
    codes = _deflate(roots, max_bits)
    body = np.where(known, peaks, np.nan).astype("<f4").tobytes() + codes
    heads, tokens = maps.shape[:2]
    return HEADER.pack(MAGIC, VERSION, heads, tokens, zlib.crc32(body)) + LENGTH.pack(len(codes)) + body


def _quantise(roots: Float[np.ndarray, "H N N"], levels: int) -> UInt8[np.ndarray, "H N N"]:
    """Round to codes in 0..255, of which ``levels`` above 0 are used."""
    codes = np.multiply(roots, levels)
    np.rint(codes, out=codes)
    if levels < LEVELS:
        codes *= LEVELS / levels
        np.rint(codes, out=codes)
    return codes.astype(np.uint8)


def _deflate(roots: Float[np.ndarray, "H N N"], max_bits: float) -> bytes:
    """Deflate codes in as many levels as stay within these bits a cell; the first head says what to expect."""
    first = _quantise(roots[:1], LEVELS)
    sizes = {strategy: len(_compress(first, strategy)) for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)}
    strategy = min(sizes, key=lambda each: sizes[each])  # where nothing repeats, searching costs time and bytes
    levels, most = LEVELS, roots.size * max_bits / 8 + BYTES_BEYOND_CODES - HEADER.size - LENGTH.size
    excess = 8 * sizes[strategy] / max(1, first.size) - max_bits
    while True:
        if max_bits < 8 and excess > 0:
            levels = max(1, min(levels - 1, int(levels * 2 ** -(excess + SPARE_BITS))))
        deflated = _compress(_quantise(roots, levels), strategy)
        if max_bits >= 8 or levels == 1 or len(deflated) <= most:
            return deflated
        excess = 8 * (len(deflated) - most) / roots.size


def _compress(codes: UInt8[np.ndarray, "H N N"], strategy: int) -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, 15, 9, strategy)  # the fastest level
    return stream.compress(codes.tobytes()) + stream.flush()


def check_maps(blob: bytes) -> tuple[int, int]:
    """Return heads and tokens of an encoded layer; deflated codes are not inflated.

    Raises:
        UserError: If the bytes are of another version, corrupt or cut off.
    """
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise UserError(f"not a layer of maps: {len(blob)} bytes that begin with {blob[:4]!r}")
    _, version, heads, tokens, checksum = HEADER.unpack_from(blob)
    if version not in READABLE:
        raise UserError(f"maps of format version {version}; this version of vit_attn reads {VERSION}")
    start, codes = HEADER.size, heads * tokens * tokens
    if version > 1:
        start += LENGTH.size
        codes = LENGTH.unpack_from(blob, HEADER.size)[0] if len(blob) >= start else 0
    if len(blob) != (expected := start + 4 * heads * tokens + codes):
        raise UserError(f"corrupt maps: {len(blob)} bytes instead of {expected} for {heads} heads and {tokens} tokens")
    if zlib.crc32(memoryview(blob)[start:]) != checksum:
        raise UserError(f"corrupt maps: wrong checksum over {len(blob)} bytes")
    return heads, tokens


def decode_maps(blob: bytes) -> Float[np.ndarray, "H N N"]:
    """Decode a layer's maps, in float32.

    Raises:
        UserError: As for ``check_maps``, or if deflated codes are of another number.
    """
    heads, tokens = check_maps(blob)
    deflated = HEADER.unpack_from(blob)[1] > 1
    start = HEADER.size + (LENGTH.size if deflated else 0)
    peaks = np.frombuffer(blob, "<f4", heads * tokens, start).reshape(heads, tokens, 1)
    data, expected = blob[start + peaks.nbytes :], heads * tokens * tokens
    if deflated:
        try:
            data = zlib.decompressobj().decompress(data, expected + 1)  # no more, whatever a hostile stream holds
        except zlib.error as error:
            raise UserError(f"corrupt maps: {error}") from error
    if len(data) != expected:
        raise UserError(f"corrupt maps: {len(data)} codes instead of {expected}")
    codes = np.frombuffer(data, np.uint8).reshape(heads, tokens, tokens)
    return (peaks * (codes.astype(np.float32) / LEVELS) ** 2).astype(np.float32)
