"""Writing a step for the Attention tab, from numpy arrays alone."""

import functools
import io
import json
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vit_attn.errors import UserError, did_you_mean
from vit_attn.tb_plugin.blobs import BYTES_BEYOND_CODES, encode_maps
from vit_attn.tb_plugin.event_file import write_blobs
from vit_attn.tb_plugin.index import add_details, build_index
from vit_attn.tb_plugin.inputs import (
    HEAD_MEASURES,
    POOLED_LAYER,
    Faithfulness,
    HeadMeasures,
    Measures,
    MethodRows,
    QueriesKeys,
    TabImages,
    Tokens,
)
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag, queries_keys_tag
from vit_attn.tb_plugin.queries_keys import encode_queries_keys
from vit_attn.tb_plugin.sinks import describe_sinks, often_attended

__all__ = ["Faithfulness", "MethodRows", "QueriesKeys", "TabImages", "Tokens", "bytes_of_image", "write_attention"]


WORKERS = 2
"""Threads that encode: numpy and zlib leave the interpreter to others, and training needs cores, too."""


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
    _check(images, probabilities, tokens, relevance, methods, faithfulness)
    blobs, heads, sinks = _encode(images, maps, tokens.count, relevance, max_bits)
    _check_details(heads, tokens.count, len(blobs), head_measures, queries_keys)
    index = build_index(images, probabilities, tokens, heads, methods, faithfulness)
    index |= {"relevance": relevance is not None, "note": note, "sinks": sinks}
    add_details(index, head_measures, queries_keys)
    series = {image_tag(i): of_image for i, of_image in enumerate(blobs)}
    if queries_keys is not None:
        for i in range(queries_keys.images):
            series[queries_keys_tag(i)] = [encode_queries_keys(q[i], k[i]) for q, k in queries_keys.layers]
    series[INDEX_TAG] = [json.dumps(index).encode()]  # last: a step that is listed is complete
    write_blobs(writer, step, series)
    return sum(len(blob) for of_tag in series.values() for blob in of_tag)


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
            heads.append(_check_layer(layer, len(heads), len(blobs), tokens))
            encoded = pool.map(functools.partial(encode_maps, max_bits=max_bits), layer)
            attended.append(often_attended(layer))
            for of_image, blob in zip(blobs, encoded, strict=True):
                of_image.append(blob)
        if relevance is not None:
            for of_image, blob in zip(blobs, pool.map(encode_maps, relevance[:, None]), strict=True):
                of_image.append(blob)
    return blobs, heads, describe_sinks(attended, [png for png, *_ in blobs])


def _check(
    images: TabImages,
    probabilities: Float[np.ndarray, "_ classes"],
    tokens: Tokens,
    relevance: Float[np.ndarray, "_ N N"] | None,
    methods: Sequence[MethodRows],
    faithfulness: Faithfulness | None,
) -> None:
    count = len(images.pixels)
    lengths: dict[str, Sized | None] = {
        "labels": images.labels,
        "probabilities": probabilities,
        "relevance": relevance,
        "pooled_relevance": tokens.pooled_relevance,
        "ground_truth": images.ground_truth,
        "answers": images.answers,
        "faithfulness": None if faithfulness is None else faithfulness.by_image,
    }
    for name, values in (lengths | {f"rows of {each.name}": each.rows for each in methods}).items():
        if values is not None and len(values) != count:
            raise UserError(f"{name} must be one an image, got {len(values)} {name} for {count} images")
    _check_tokens(images, tokens, methods)
    _check_targets(images, tokens, methods)
    if faithfulness is not None:
        for measures in (faithfulness.overall, *faithfulness.by_image):
            _check_measures(measures, {POOLED_LAYER, *(method.label for method in methods)})


def _check_tokens(images: TabImages, tokens: Tokens, methods: Sequence[MethodRows]) -> None:
    count, patches = len(images.pixels), tokens.count - tokens.num_prefix_tokens
    if tokens.pooled_rows.shape[0] not in (1, count) or tokens.pooled_rows.shape[1] != tokens.count:
        raise UserError(
            f"pooled_rows must be (1 or {count}, {tokens.count}) for grid_size={tokens.grid_size}, "
            f"num_prefix_tokens={tokens.num_prefix_tokens}, got {tokens.pooled_rows.shape}"
        )
    for method in methods:
        if method.rows is not None and method.rows.shape[1] != tokens.count:
            raise UserError(f"rows of {method.name} must be ({count}, {tokens.count}), got {method.rows.shape}")
    for regions in images.ground_truth or ():
        for name, region in regions.items():
            if outside := [patch for patch in region if not 0 <= patch < patches]:
                raise UserError(f"patches of {name} must be in 0..{patches - 1}, got {outside[0]}")


def _check_targets(images: TabImages, tokens: Tokens, methods: Sequence[MethodRows]) -> None:
    count, targets = len(images.pixels), images.targets or [[]] * len(images.pixels)
    if len(targets) != count or len({len(of_image) for of_image in targets}) > 1:
        raise UserError(f"targets must be equally many classes for each of {count} images, got {targets}")
    for method in methods:
        expected = (count, len(targets[0]), tokens.count)
        if method.target_rows is not None and method.target_rows.shape != expected:
            raise UserError(f"target_rows of {method.name} must be {expected}, got {method.target_rows.shape}")


def _check_details(
    heads: Sequence[int], tokens: int, images: int, measures: HeadMeasures | None, queries_keys: QueriesKeys | None
) -> None:
    if measures is not None:
        found = {name: [len(of_layer) for of_layer in by_layer] for name, by_layer in measures.items()}
        if found != {name: list(heads) for name in HEAD_MEASURES}:
            raise UserError(f"head_measures must be {', '.join(HEAD_MEASURES)} of heads {list(heads)}, got {found}")
    if queries_keys is None:
        return
    if not len(queries_keys.layers) == len(queries_keys.scales) == len(heads) or queries_keys.images > images:
        raise UserError(
            f"queries_keys must be of {len(heads)} layers and at most {images} images, got {len(queries_keys.layers)} "
            f"layers, {len(queries_keys.scales)} scales and {queries_keys.images} images"
        )
    for number, (layer, expected) in enumerate(zip(queries_keys.layers, heads, strict=True), 1):
        for vectors in layer:
            if vectors.shape[:3] != (queries_keys.images, expected, tokens):
                raise UserError(
                    f"queries and keys of layer {number} must be ({queries_keys.images}, {expected}, {tokens}, "
                    f"channels), got {vectors.shape}"
                )


def _check_measures(measures: Measures, labels: set[str]) -> None:
    for label, each in measures.items():
        if label not in labels:
            raise UserError(
                f"faithfulness must be of {', '.join(sorted(labels))}, got {label!r}{did_you_mean(label, labels)}"
            )
        if set(each) != {"deletion", "insertion"} or any(len(values) != 5 for values in each.values()):
            raise UserError(f"faithfulness of {label} must have deletion and insertion with five numbers each")


def _check_layer(layer: np.ndarray, index: int, images: int, tokens: int) -> int:
    """Return the heads of a layer."""
    if layer.ndim != 4 or layer.shape[0] != images or layer.shape[2:] != (tokens, tokens):
        raise UserError(f"maps of layer {index + 1} must be ({images}, heads, {tokens}, {tokens}), got {layer.shape}")
    return layer.shape[1]


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
