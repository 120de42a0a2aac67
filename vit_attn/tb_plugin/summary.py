"""Encoding a step for the Attention tab, and writing it, from numpy arrays alone."""

import functools
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vit_attn.tb_plugin.blobs import BYTES_BEYOND_CODES, encode_maps
from vit_attn.tb_plugin.event_file import write_blobs
from vit_attn.tb_plugin.index import add_details, build_index
from vit_attn.tb_plugin.inputs import (
    Faithfulness,
    HeadMeasures,
    MethodRows,
    QueriesKeys,
    TabImages,
    Tokens,
)
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag, queries_keys_tag
from vit_attn.tb_plugin.queries_keys import encode_queries_keys
from vit_attn.tb_plugin.sinks import describe_sinks, often_attended
from vit_attn.tb_plugin.step_checks import check_details, check_layer, check_step

__all__ = [
    "EncodedStep",
    "Faithfulness",
    "MethodRows",
    "QueriesKeys",
    "TabImages",
    "Tokens",
    "bytes_of_image",
    "encode_attention",
    "write_attention",
]


WORKERS = 2
"""Threads that encode: numpy and zlib leave the interpreter to others, and training needs cores, too."""


@dataclass(frozen=True)
class EncodedStep:
    """One step as the page reads it, encoded.

    Args:
        index: Everything but pixels and maps.
        images: Blobs of each image: its PNG, a blob a layer, and its relevance where there is one.
        queries_keys: Blobs of the first images, a blob a layer.
    """

    index: dict[str, Any]
    images: list[list[bytes]]
    queries_keys: list[list[bytes]]

    def series(self) -> dict[str, list[bytes]]:
        """Return the blobs by tag; the index comes last, since a step that is listed is complete."""
        images = {image_tag(i): blobs for i, blobs in enumerate(self.images)}
        vectors = {queries_keys_tag(i): blobs for i, blobs in enumerate(self.queries_keys)}
        return {**images, **vectors, INDEX_TAG: [json.dumps(self.index).encode()]}


def write_attention(  # noqa: PLR0913  a step has that much
    writer: Any,
    step: int,
    images: TabImages,
    probabilities: Float[np.ndarray, "B classes"],
    maps: Iterable[Float[np.ndarray, "B _ N N"]],
    tokens: Tokens,
    relevance: Float[np.ndarray, "B N N"] | None = None,
    methods: Sequence[MethodRows] = (),
    faithfulness: Faithfulness | None = None,
    note: str = "",
    head_measures: HeadMeasures | None = None,
    queries_keys: QueriesKeys | None = None,
    max_bits: float = 8,
) -> int:
    """Write one step for the Attention tab; returns the bytes of all blobs.

    Args:
        writer: A folder, or a writer of event files: torch's ``SummaryWriter`` or TensorBoard's ``EventFileWriter``.
        step: Training step; 0 is the untrained network.
        images: The images.
        probabilities: Predicted probabilities.
        maps: Attention weights, a layer at a time, the first layer first; rows are queries. Layers may differ in heads.
        tokens: Tokens of the maps.
        relevance: Relevance of each token (column) to each token (row) for the predicted class.
        methods: Attribution methods with their labels, and the maps of those that the page does not compute.
        faithfulness: Deletion and insertion of the methods' maps, of random orders and of centre first.
        note: What was left out, stated on the page.
        head_measures: Entropy, distance, sink and prefix mass of each layer and head, mean over images.
        queries_keys: Queries and keys of the first images.
        max_bits: Mean bits of a weight; maps that deflate to more are written in fewer levels, with a larger error.

    Raises:
        UserError: If the arrays do not fit together.
    """
    encoded = encode_attention(
        images,
        probabilities,
        maps,
        tokens,
        relevance,
        methods,
        faithfulness,
        note,
        head_measures,
        queries_keys,
        max_bits,
    )
    series = encoded.series()
    write_blobs(writer, step, series)
    return sum(len(blob) for of_tag in series.values() for blob in of_tag)


def encode_attention(  # noqa: PLR0913  a step has that much
    images: TabImages,
    probabilities: Float[np.ndarray, "B classes"],
    maps: Iterable[Float[np.ndarray, "B _ N N"]],
    tokens: Tokens,
    relevance: Float[np.ndarray, "B N N"] | None = None,
    methods: Sequence[MethodRows] = (),
    faithfulness: Faithfulness | None = None,
    note: str = "",
    head_measures: HeadMeasures | None = None,
    queries_keys: QueriesKeys | None = None,
    max_bits: float = 8,
) -> EncodedStep:
    """Encode one step for the page, without writing it; arguments and errors as for :func:`write_attention`."""
    check_step(images, probabilities, tokens, relevance, methods, faithfulness)
    blobs, heads, sinks = _encode(images, maps, tokens.count, relevance, max_bits)
    check_details(heads, tokens.count, len(blobs), head_measures, queries_keys)
    index = build_index(images, probabilities, tokens, heads, methods, faithfulness)
    index |= {"relevance": relevance is not None, "note": note, "sinks": sinks}
    add_details(index, head_measures, queries_keys)
    vectors: list[list[bytes]] = []
    if queries_keys is not None:
        layers = queries_keys.layers
        vectors = [[encode_queries_keys(q[i], k[i]) for q, k in layers] for i in range(queries_keys.images)]
    return EncodedStep(index, blobs, vectors)


def bytes_of_image(
    heads: Sequence[int], tokens: int, pixels: int, relevance: bool = False, rows: int = 0, max_bits: float = 8
) -> int:
    """Return an upper bound of the bytes that one image takes a step: its maps, its pixels, its part of the index.

    Queries and keys come on top, as :func:`~vit_attn.tb_plugin.queries_keys.bytes_of_queries_keys` says.

    Args:
        heads: Heads of each layer.
        tokens: Prefix tokens and patches.
        pixels: Height times width of the image.
        relevance: Whether its relevance is written.
        rows: Maps of the pooled row that are written: one a method, or one a target class of a method.
        max_bits: Mean bits of a weight.
    """
    maps = sum(heads) + relevance
    text = 2500 + 20 * tokens + rows * (300 + 12 * tokens)  # classes, measures and two rows; a method's are more
    text += 4 * 12 * sum(heads)  # measures of the heads
    weights = int(maps * tokens * (4 + tokens * min(8, max_bits) / 8)) + (len(heads) + relevance) * BYTES_BEYOND_CODES
    return weights + 3 * pixels + text


def _encode(
    images: TabImages,
    maps: Iterable[Float[np.ndarray, "B _ N N"]],
    tokens: int,
    relevance: Float[np.ndarray, "B N N"] | None,
    max_bits: float,
) -> tuple[list[list[bytes]], list[int], dict[str, Any]]:
    """Return the blobs of each image, the heads of each layer, and the sinks; images are encoded side by side."""
    heads, attended = [], []
    with ThreadPoolExecutor(WORKERS, "vit_attn_encode") as pool:
        blobs: list[list[bytes]] = [[png] for png in pool.map(_png, images.pixels)]
        for layer in maps:
            heads.append(check_layer(layer, len(heads), len(blobs), tokens))
            encoded = pool.map(functools.partial(encode_maps, max_bits=max_bits), layer)
            attended.append(often_attended(layer))
            for of_image, blob in zip(blobs, encoded, strict=True):
                of_image.append(blob)
        if relevance is not None:
            for of_image, blob in zip(blobs, pool.map(encode_maps, relevance[:, None]), strict=True):
                of_image.append(blob)
    return blobs, heads, describe_sinks(attended, [png for png, *_ in blobs])


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
