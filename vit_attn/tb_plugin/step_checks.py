"""Checks of a step's arrays, before anything is encoded."""

from collections.abc import Sequence, Sized

import numpy as np
from jaxtyping import Float

from vit_attn.errors import UserError, did_you_mean
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


def check_step(
    images: TabImages,
    probabilities: Float[np.ndarray, "_ classes"],
    tokens: Tokens,
    relevance: Float[np.ndarray, "_ N N"] | None,
    methods: Sequence[MethodRows],
    faithfulness: Faithfulness | None,
) -> None:
    """Refuse arrays of a step that do not fit together.

    Raises:
        UserError: If they do not.
    """
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


def check_details(
    heads: Sequence[int], tokens: int, images: int, measures: HeadMeasures | None, queries_keys: QueriesKeys | None
) -> None:
    """Refuse measures, queries and keys that are not of a step's layers.

    Args:
        heads: Heads of each layer.
        tokens: Number of tokens.
        images: Number of images.
        measures: Measures of each layer and head.
        queries_keys: Queries and keys of the first images.

    Raises:
        UserError: If they are not.
    """
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


def check_layer(layer: np.ndarray, index: int, images: int, tokens: int) -> int:
    """Return the heads of a layer; an error if its maps are of other images or tokens."""
    if layer.ndim != 4 or layer.shape[0] != images or layer.shape[2:] != (tokens, tokens):
        raise UserError(f"maps of layer {index + 1} must be ({images}, heads, {tokens}, {tokens}), got {layer.shape}")
    return layer.shape[1]
