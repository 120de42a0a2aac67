"""Which tokens are attention sinks: the same tokens in nearly every image, whatever these show.

A token that gets much of the attention in one image may be what the image is about. It is a sink only where its place
gets that much in other images too.

References:
    Xiao 2023, "Efficient streaming language models with attention sinks", arXiv 2309.17453, section 3.1; Gu 2024,
    "When attention sink emerges in language models", arXiv 2410.10781, for the measure by a token's mean attention.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

SINK_TIMES = 10
"""A sink gets this many times the uniform share of all queries' attention, or half of it where that is less."""
IN_IMAGES = 0.9
"""Share of the images in which it must."""
FEWEST_IMAGES = 4
"""Images that differ, below which nothing is called a sink."""


def often_attended(layer: Float[np.ndarray, "B H N N"]) -> Bool[np.ndarray, "B _ N"]:
    """Whether each token gets a sink's share of a head's attention, in each image; the last head is the mean of all."""
    with np.errstate(invalid="ignore"):
        columns = layer.mean(axis=-2)
        columns = np.concatenate([columns, columns.mean(axis=1, keepdims=True)], axis=1)
        return columns >= min(SINK_TIMES / layer.shape[-1], 0.5)


def describe_sinks(layers: Sequence[Bool[np.ndarray, "B _ N"]], images: Sequence[bytes]) -> dict[str, Any]:
    """What the index says of sinks: over how many images, and the tokens by layer and head; null where they are few.

    Args:
        layers: From ``often_attended``.
        images: What tells images apart; of equal ones the first alone counts.
    """
    first = sorted({image: i for i, image in reversed(list(enumerate(images)))}.values())
    if len(first) < FEWEST_IMAGES:
        return {"images": len(first), "layers": None}
    found = []
    for often in layers:
        tokens = [np.flatnonzero(head).tolist() for head in often[first].mean(axis=0) >= IN_IMAGES]
        found.append({"heads": tokens[:-1], "mean": tokens[-1]})
    return {"images": len(first), "layers": found}
