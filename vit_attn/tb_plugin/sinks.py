"""Attention sinks: tokens that are attended to in nearly every image, whatever these show.

A token that gets much of the attention in one image may be what the image is about. It is a sink only if the token at
the same position gets that much in other images too.

References:
    Xiao 2023, "Efficient streaming language models with attention sinks", arXiv 2309.17453, section 3.1; Gu 2024,
    "When attention sink emerges in language models", arXiv 2410.10781, for the measure by a token's mean attention.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

SINK_TIMES = 10
"""A sink gets this many times uniform attention, as the mean over queries, or half of all where that is less."""
IMAGE_FRACTION = 0.9
"""Fraction of the images in which a sink gets that much."""
MIN_IMAGES = 4
"""Different images below which no token is called a sink."""


def often_attended(layer: Float[np.ndarray, "B H N N"]) -> Bool[np.ndarray, "B _ N"]:
    """Find the tokens that get a sink's attention, in each head and image; the last head is the mean of all."""
    with np.errstate(invalid="ignore"):
        columns = layer.mean(axis=-2)
        columns = np.concatenate([columns, columns.mean(axis=1, keepdims=True)], axis=1)
        return columns >= min(SINK_TIMES / layer.shape[-1], 0.5)


def describe_sinks(layers: Sequence[Bool[np.ndarray, "B _ N"]], images: Sequence[bytes]) -> dict[str, Any]:
    """Return the sinks for the index: number of images, and the tokens by layer and head; null for few images.

    Args:
        layers: From ``often_attended``.
        images: Contents of the images; of equal ones only the first counts.
    """
    first = sorted({image: i for i, image in reversed(list(enumerate(images)))}.values())
    if len(first) < MIN_IMAGES:
        return {"images": len(first), "layers": None}
    found = []
    for often in layers:
        tokens = [np.flatnonzero(head).tolist() for head in often[first].mean(axis=0) >= IMAGE_FRACTION]
        found.append({"heads": tokens[:-1], "mean": tokens[-1]})
    return {"images": len(first), "layers": found}
