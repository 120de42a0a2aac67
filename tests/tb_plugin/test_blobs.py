import zlib

import numpy as np
import pytest

from vit_attn.errors import UserError
from vit_attn.tb_plugin.blobs import (
    BYTES_BEYOND_CODES,
    HEADER,
    LENGTH,
    MAGIC,
    _quantise,
    check_maps,
    decode_maps,
    encode_maps,
)


def rows(heads: int = 3, tokens: int = 17, sink: float = 6.0) -> np.ndarray:
    scores = np.random.default_rng(0).standard_normal((heads, tokens, tokens))
    scores[..., 3] += sink
    weights = np.exp(scores)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("sink", [0.0, 6.0, 12.0])
def test_every_cell_is_exact_to_four_thousandths_of_its_rows_maximum(sink):
    maps = rows(sink=sink)
    error = np.abs(decode_maps(encode_maps(maps)) - maps) / maps.max(axis=-1, keepdims=True)
    assert error.max() <= 0.004


def test_small_cells_beside_a_sink_keep_their_order():
    maps = rows(1, 50, sink=8.0)
    ranks = [np.argsort(np.argsort(each[0, 7])) for each in (maps, decode_maps(encode_maps(maps)))]
    assert np.corrcoef(*ranks)[0, 1] > 0.98


@pytest.mark.parametrize(("heads", "tokens"), [(1, 1), (1, 5), (24, 9)])
def test_heads_and_tokens_are_read_back(heads, tokens):
    assert check_maps(encode_maps(rows(heads, tokens, 0) if tokens > 3 else np.ones((heads, tokens, tokens)))) == (
        heads,
        tokens,
    )


def test_rows_of_zeros_stay_zero_and_rows_that_are_not_finite_are_unknown():
    maps = rows(1, 5, 0)
    maps[0, 1], maps[0, 2, 4] = 0.0, np.nan
    read = decode_maps(encode_maps(maps))
    assert (read[0, 1] == 0).all()
    assert np.isnan(read[0, 2]).all()
    assert np.isfinite(read[0, [0, 3, 4]]).all()


@pytest.mark.parametrize("peak", [1e-37, 2e-39, 1e-41])
def test_rows_whose_reciprocal_overflows_are_read_back(peak):
    maps = rows(1, 5, 0)
    maps[0, 1] = [0, peak, peak / 2, 0, peak / 4]
    read = decode_maps(encode_maps(maps))
    np.testing.assert_allclose(read[0, 1], maps[0, 1], rtol=0, atol=0.004 * peak)
    assert np.abs(read - maps).max() <= 0.004


@pytest.mark.parametrize("levels", [254, 200, 150, 100, 63, 12])
def test_fewer_levels_add_their_own_error_to_that_of_the_code(levels):
    values = np.linspace(0, 1, 300**2, dtype=np.float32).reshape(1, 300, 300)
    error = np.abs((_quantise(np.sqrt(values), levels) / 255) ** 2 - values).max()
    assert 0.5 / levels < error <= 1 / levels + 0.004


def test_negative_maps_are_refused():
    with pytest.raises(UserError, match="maps must not be negative, got a minimum of -1"):
        encode_maps(-np.ones((1, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: blob[:-1], "corrupt maps: .* bytes instead of"),
        (lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), "corrupt maps: wrong checksum"),
        (lambda blob: blob[:18], "corrupt maps: 18 bytes instead of"),
        (lambda blob: blob[:4] + b"\x03\x00" + blob[6:], "format version 3; this version of vit_attn reads 2"),
        (lambda blob: b"", "not a layer of maps: 0 bytes"),
        (lambda blob: b"PNG!" + blob[4:], "not a layer of maps"),
    ],
)
def test_corrupt_bytes_are_refused(damage, message):
    with pytest.raises(UserError, match=message):
        check_maps(damage(encode_maps(rows())))


def first_version(maps: np.ndarray) -> bytes:
    """A layer as version 1 wrote it."""
    peaks = maps.max(axis=-1, keepdims=True)
    body = peaks.astype("<f4").tobytes() + np.rint(255 * np.sqrt(maps / peaks)).astype(np.uint8).tobytes()
    return HEADER.pack(MAGIC, 1, *maps.shape[:2], zlib.crc32(body)) + body


def test_maps_of_version_1_are_read_and_version_2_holds_the_same_numbers():
    maps = rows()
    assert check_maps(first_version(maps)) == (3, 17)
    np.testing.assert_array_equal(decode_maps(first_version(maps)), decode_maps(encode_maps(maps)))


@pytest.mark.parametrize("bits", [2, 3.5, 6])
def test_maps_that_deflate_to_more_bits_than_wanted_are_written_in_fewer_levels(bits):
    maps = rows(6, 197, sink=0)
    blobs = [encode_maps(maps), encode_maps(maps, bits)]
    limit = 6 * 197 * (4 + 197 * bits / 8) + BYTES_BEYOND_CODES
    assert len(blobs[1]) <= limit < len(blobs[0])
    assert len(blobs[1]) > 0.9 * limit  # no more is given up than needed
    errors = [(np.abs(decode_maps(blob) - maps) / maps.max(axis=-1, keepdims=True)).max() for blob in blobs]
    assert errors[0] <= 0.004 < errors[1] < 0.004 * 2 ** (8 - bits)


def test_maps_that_deflate_to_fewer_bits_than_wanted_keep_all_levels():
    maps = np.full((6, 197, 197), 1 / 197, np.float32)
    assert encode_maps(maps, 1) == encode_maps(maps)


@pytest.mark.parametrize("codes", [b"", bytes(3 * 17 * 17 - 1), bytes(10**6)])
def test_a_stream_of_another_number_of_codes_is_refused(codes):
    deflated = zlib.compress(codes)
    body = bytes(4 * 3 * 17) + deflated
    blob = HEADER.pack(MAGIC, 2, 3, 17, zlib.crc32(body)) + LENGTH.pack(len(deflated)) + body
    with pytest.raises(UserError, match="codes instead of 867"):
        decode_maps(blob)


def test_a_stream_that_is_none_is_refused():
    body = bytes(4 * 3 * 17) + b"none"
    blob = HEADER.pack(MAGIC, 2, 3, 17, zlib.crc32(body)) + LENGTH.pack(4) + body
    with pytest.raises(UserError, match="corrupt maps: Error -3"):
        decode_maps(blob)
