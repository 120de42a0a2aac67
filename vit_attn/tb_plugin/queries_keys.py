"""Encoding of a layer's queries and keys: int8, relative to each vector's largest magnitude. See docs/format.md."""

import struct

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError

VERSION = 1
MAGIC = b"VAQK"
HEADER = struct.Struct("<4sHHII")
"""Magic, version, heads, tokens, channels of a head: 16 bytes, little endian."""

Vectors = Float[np.ndarray, "H N D"]


def encode_queries_keys(queries: Vectors, keys: Float[np.ndarray, "_ _ _"]) -> bytes:
    """Encode a layer's queries and keys: header, then of both each vector's largest magnitude and its codes.

    Every channel is exact to 0.4 % of its vector's largest magnitude, which is NaN for a vector that is not finite.

    Raises:
        UserError: If they differ in heads, tokens or channels.
    """
    if queries.shape != keys.shape:
        raise UserError(f"queries and keys must be of one shape, got {queries.shape} and {keys.shape}")
    heads, tokens, channels = queries.shape
    return HEADER.pack(MAGIC, VERSION, heads, tokens, channels) + _encode(queries) + _encode(keys)


def _encode(vectors: Vectors) -> bytes:
    largest = np.abs(vectors).max(axis=-1, keepdims=True).astype("<f4")
    known = np.isfinite(largest)
    parts = np.divide(vectors, largest, out=np.zeros_like(vectors, np.float32), where=known & (largest > 0))
    codes = np.rint(127 * parts).astype(np.int8)
    return np.where(known, largest, np.nan).astype("<f4").tobytes() + codes.tobytes()


def decode_queries_keys(blob: bytes) -> tuple[Vectors, Vectors]:
    """Decode a layer's queries and keys, in float32."""
    heads, tokens, channels = check_queries_keys(blob)
    half = heads * tokens * (4 + channels)
    first, second = (blob[start : start + half] for start in (HEADER.size, HEADER.size + half))
    return _decode(first, heads, tokens), _decode(second, heads, tokens)


def _decode(half: bytes, heads: int, tokens: int) -> Vectors:
    largest = np.frombuffer(half, "<f4", heads * tokens).reshape(heads, tokens, 1)
    codes = np.frombuffer(half, np.int8, offset=largest.nbytes).reshape(heads, tokens, -1)
    return (largest * (codes.astype(np.float32) / 127)).astype(np.float32)


def check_queries_keys(blob: bytes) -> tuple[int, int, int]:
    """Return heads, tokens and channels of an encoded layer.

    Raises:
        UserError: If the bytes are of another version, corrupt or cut off.
    """
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise UserError(f"not a layer of queries and keys: {len(blob)} bytes that begin with {blob[:4]!r}")
    _, version, heads, tokens, channels = HEADER.unpack_from(blob)
    if version != VERSION:
        raise UserError(f"queries and keys of format version {version}; this version of vit_attn reads {VERSION}")
    if len(blob) != (expected := bytes_of_queries_keys(heads, tokens, channels)):
        raise UserError(f"corrupt queries and keys: {len(blob)} bytes instead of {expected}")
    return heads, tokens, channels


def bytes_of_queries_keys(heads: int, tokens: int, channels: int) -> int:
    """Return the bytes of an encoded layer."""
    return HEADER.size + 2 * heads * tokens * (4 + channels)
