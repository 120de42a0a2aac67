import numpy as np
import pytest

from vit_attn.errors import UserError
from vit_attn.tb_plugin.queries_keys import (
    bytes_of_queries_keys,
    check_queries_keys,
    decode_queries_keys,
    encode_queries_keys,
)


def vectors(seed: int = 0, heads: int = 3, tokens: int = 5, channels: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((heads, tokens, channels)).astype(np.float32)


def test_every_channel_is_exact_to_four_thousandths_of_its_vectors_largest_magnitude():
    given = vectors(0), vectors(1)
    blob = encode_queries_keys(*given)
    assert len(blob) == bytes_of_queries_keys(3, 5, 8)
    for read, expected in zip(decode_queries_keys(blob), given, strict=True):
        assert (np.abs(read - expected) / np.abs(expected).max(axis=-1, keepdims=True)).max() <= 0.004


def test_vectors_of_zeros_stay_zero_and_those_that_are_not_finite_are_unknown():
    queries = vectors()
    queries[0, 1], queries[0, 2, 3] = 0.0, np.inf
    read, _ = decode_queries_keys(encode_queries_keys(queries, vectors(1)))
    assert (read[0, 1] == 0).all()
    assert np.isnan(read[0, 2]).all()
    assert np.isfinite(read[1:]).all()


def test_vectors_whose_reciprocal_overflows_are_read_back():
    queries = vectors() * np.float32(1e-39)
    read, _ = decode_queries_keys(encode_queries_keys(queries, vectors(1)))
    assert (np.abs(read - queries) / np.abs(queries).max(axis=-1, keepdims=True)).max() <= 0.004


def test_queries_and_keys_of_other_shapes_are_refused():
    with pytest.raises(UserError, match="queries and keys must be of one shape"):
        encode_queries_keys(vectors(), vectors(heads=2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: blob[:-1], "corrupt queries and keys: .* bytes instead of"),
        (lambda blob: blob[:4] + b"\x02\x00" + blob[6:], "of format version 2; this version of vit_attn reads 1"),
        (lambda blob: b"VATN" + blob[4:], "not a layer of queries and keys"),
        (lambda blob: b"", "not a layer of queries and keys: 0 bytes"),
    ],
)
def test_corrupt_bytes_are_refused(damage, message):
    with pytest.raises(UserError, match=message):
        check_queries_keys(damage(encode_queries_keys(vectors(), vectors(1))))
