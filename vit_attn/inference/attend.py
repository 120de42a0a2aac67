"""Attention maps of image files, as pictures and as numbers."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from vit_attn.attention_maps.methods.registry import AttributionInput, AttributionMethod, drawn_methods
from vit_attn.attention_maps.precision import NotFinite
from vit_attn.attention_maps.recording.token_layout import crop_to_patches, token_layout
from vit_attn.attention_maps.recording.tokens import find_token, prefix_names, token_name
from vit_attn.attention_maps.summary import (
    SUMMARY_FIELDS,
    AttentionSummary,
    method_rows,
    record_logits,
    summaries_of,
)
from vit_attn.errors import printable, shortened
from vit_attn.inference.network import TrainedNetwork
from vit_attn.plotting.method_maps import method_map
from vit_attn.plotting.overlay import Mark, draw_overlays, draw_sheet, stack
from vit_attn.plotting.panels import WIDTH

STEM_BYTES = 200
"""Longest beginning of a file name that is kept, of the 255 bytes that a file system allows."""
POOLED = "what the network pools"
ACROSS = 4
"""Panels a row of a figure, which is seen larger than one in TensorBoard."""


@dataclass(frozen=True)
class MapSettings:
    """Token and class that the maps are of.

    Args:
        query: Query token, as :func:`vit_attn.attention_maps.recording.tokens.find_token` takes it; None for the pooled
            ones.
        target: Class whose relevance is mapped; None for the predicted one.
    """

    query: str | None = None
    target: int | None = None


@dataclass(frozen=True)
class ImageAttention:
    """Attention of one image.

    Args:
        summary: Its maps.
        rows: Map over all tokens by each method that is drawn.
        query: The query token in words.
    """

    summary: AttentionSummary
    rows: dict[AttributionMethod, Float[np.ndarray, " N"]]
    query: str


def attend(images: Sequence[np.ndarray], network: TrainedNetwork, settings: MapSettings) -> list[ImageAttention | None]:
    """Compute the attention of a batch of images; None for each whose maps or logits are not finite.

    Args:
        images: Pixels in 0..255, each (height, width, channels).
        network: The network, on its device.
        settings: Query token and target class.
    """
    if not images:
        return []
    try:
        attentions = _attend(images, network, settings)
    except NotFinite:
        if len(images) == 1:
            return [None]
        return [attention for image in images for attention in attend([image], network, settings)]
    return [each if math.isfinite(each.summary.probabilities.sum()) else None for each in attentions]


def _attend(images: Sequence[np.ndarray], network: TrainedNetwork, settings: MapSettings) -> list[ImageAttention]:
    net, query, name = network.net, None, POOLED
    batch = network.normalize(images, next(net.parameters()).device)
    if settings.query is not None:
        layout = token_layout(net, batch)
        prefix = prefix_names(net, layout.num_prefix_tokens)
        query = find_token(settings.query, layout, prefix)
        name = token_name(query, layout, prefix)
    recording, logits = record_logits(net, batch)
    summaries = summaries_of(recording, logits, query, settings.target)
    target = torch.tensor([summary.target for summary in summaries], device=logits.device)
    inputs = AttributionInput(net, batch, recording, target)
    queries = None if query is None else [query]
    methods = [each for each in drawn_methods() if each.supports(net) and (query is None or each.has_query)]
    rows = {method: method_rows(method, inputs, summaries, queries) for method in methods}
    return [
        ImageAttention(summary, {method: row[i] for method, row in rows.items()}, name)
        for i, summary in enumerate(summaries)
    ]


def result_names(files: Sequence[Path]) -> dict[Path, str]:
    """Choose a unique base name for the results of each file; files of one name in several folders get a number."""
    stems, names = [_shortened_stem(path.stem) for path in files], {}
    for number, (path, stem) in enumerate(zip(files, stems, strict=True)):
        name = stem if stems.count(stem) == 1 else f"{stem}_{number + 1}"
        while name in names.values() or (name != stem and name in stems):
            name += "_"
        names[path] = name
    return names


def _shortened_stem(stem: str) -> str:
    return os.fsdecode(os.fsencode(stem)[:STEM_BYTES])


def save_attention(
    base: Path, path: Path, image: np.ndarray, attention: ImageAttention, network: TrainedNetwork
) -> tuple[str, Path]:
    """Write ``BASE.attention.png`` and ``BASE.attention.npz``.

    Args:
        base: Folder and base name of the results.
        path: The image file.
        image: Its pixels, (height, width, channels).
        attention: Its attention.
        network: The network.

    Returns:
        The prediction in words, and the path of the picture.
    """
    summary = attention.summary
    prediction = f"{_title(network, summary.predicted)} ({summary.probabilities[summary.predicted]:.0%})"
    heading = f"{shortened(printable(path.name), 80)}\n{network.card.architecture}\nprediction: {prediction}"
    picture, numbers = (base.with_name(f"{base.name}.attention.{ending}") for ending in ("png", "npz"))
    drawn = draw_attention(image, attention, heading, _title(network, summary.target))
    Image.fromarray(drawn).save(picture, optimize=True)
    others = {f"rows_{each.name}": row for each, row in attention.rows.items() if each.name not in SUMMARY_FIELDS}
    arrays: dict[str, Any] = vars(summary) | others
    names = np.array(network.card.label_names or [f"class {i}" for i in range(len(summary.probabilities))])
    np.savez_compressed(numbers, image=image, class_names=names, path=str(path), **arrays)
    return prediction, picture


def _title(network: TrainedNetwork, index: int) -> str:
    """Return the class name, shortened to fit a picture."""
    return shortened(printable(network.class_name(index)), 80)


def draw_attention(image: np.ndarray, attention: ImageAttention, heading: str, target: str) -> np.ndarray:
    """Draw the image with its maps on one scale, above a sheet of all layers and heads.

    Args:
        image: Pixels (height, width, channels).
        attention: Its attention.
        heading: Text above the picture: file, network and prediction.
        target: Name of the class that class-specific maps are for.
    """
    summary, prefix = attention.summary, attention.summary.num_prefix_tokens
    maps = [method_map(method, row, summary, target) for method, row in attention.rows.items()]
    patch = summary.query - prefix
    marks = [Mark("query", patch)] if patch >= 0 else []
    visible = crop_to_patches(image, summary)
    rgb = visible.repeat(3, axis=2) if visible.shape[2] == 1 else visible
    of = f"attention of {attention.query}"
    top = draw_overlays(rgb, f"{heading}\n{of}, by method", maps, marks, dpi=150, across=ACROSS)
    of_heads = summary.heads[..., :prefix].sum(axis=-1) if prefix else None
    width = WIDTH * ACROSS / 2
    sheet = draw_sheet(summary.patches(summary.heads), f"{of}, by layer and head", of_heads, dpi=150, width=width)
    return stack([top, sheet])
