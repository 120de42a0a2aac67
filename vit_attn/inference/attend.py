"""Attention maps of image files, as pictures and as numbers."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

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
from vit_attn.data.images.fits import SeenPicture
from vit_attn.errors import UserError, printable, shortened
from vit_attn.inference.images import by_shape, to_batch
from vit_attn.inference.network import TrainedNetwork
from vit_attn.plotting.method_maps import method_map
from vit_attn.plotting.overlay import Mark, draw_overlays, draw_sheet, padded_patches, stack
from vit_attn.plotting.panels import WIDTH
from vit_attn.reports.prediction_table import NOT_FINITE

STEM_BYTES = 200
"""Longest beginning of a file name that is kept, of the 255 bytes that a file system allows."""
POOLED = "what the network pools"
Query = tuple[int | None, str]
"""Index of the query token, or None for what the network pools, and its name."""
ACROSS = 4
"""Panels a row of a figure, which is seen larger than one in TensorBoard; of wide images, half as many."""
WIDE = 2
"""Width of a wide image by its height."""


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

    def __repr__(self) -> str:
        """Summary, query, and the names of the maps."""
        return f"ImageAttention({self.summary!r}, query={self.query!r}, maps={', '.join(self.maps)})"

    @property
    def maps(self) -> dict[str, Float[np.ndarray, "rows cols"]]:
        """Map over the patches by each method, by its name: relevance, last_layer, rollout, …."""
        return {method.name: self.summary.patches(row) for method, row in self.rows.items()}

    @property
    def heads(self) -> Float[np.ndarray, "L H rows cols"]:
        """Attention of the query to the patches in each layer and head."""
        return self.summary.patches(self.summary.heads)


def attend(images: Sequence[SeenPicture], network: TrainedNetwork, settings: MapSettings) -> list[ImageAttention | str]:
    """Compute the attention of images, in one batch for each shape; a message for each image that has none.

    Args:
        images: The images as the network sees them.
        network: The network, on its device.
        settings: Query token and target class.

    Raises:
        UserError: If the network cannot be recorded, or if there is no such class or query. If images may differ in
            shape, a query that one lacks is a message.
    """
    attentions: dict[int, ImageAttention | str] = {}
    for group in by_shape(images):
        batch = to_batch([images[i] for i in group], network, next(network.net.parameters()).device)
        try:
            query = _find_query(settings.query, network.net, batch)
        except UserError as error:
            if not network.any_size_patches:
                raise
            attentions |= dict.fromkeys(group, str(error))
            continue
        attentions |= zip(group, _attend_batch(batch, network, query, settings.target), strict=True)
    return [attentions[i] for i in range(len(images))]


def attend_batch(batch: Tensor, network: TrainedNetwork, settings: MapSettings) -> list[ImageAttention | str]:
    """Compute the attention of normalised images of one shape; a message for each that has none.

    Args:
        batch: The images (B, C, height, width), on the network's device.
        network: The network.
        settings: Query token and target class.

    Raises:
        UserError: If the network cannot be recorded, or if there is no such class or query.
    """
    return _attend_batch(batch, network, _find_query(settings.query, network.net, batch), settings.target)


def _find_query(text: str | None, net: Any, batch: Tensor) -> Query:
    if text is None:
        return None, POOLED
    layout = token_layout(net, batch)
    prefix = prefix_names(net, layout.num_prefix_tokens)
    query = find_token(text, layout, prefix)
    return query, token_name(query, layout, prefix)


def _attend_batch(
    batch: Tensor, network: TrainedNetwork, query: Query, target: int | None
) -> list[ImageAttention | str]:
    """Compute the attention of a batch; one by one, if it is not finite for some image."""
    try:
        attentions = _attend(batch, network, query, target)
    except NotFinite:
        if len(batch) == 1:
            return [NOT_FINITE]
        return [attention for image in batch for attention in _attend_batch(image[None], network, query, target)]
    return [each if math.isfinite(each.summary.probabilities.sum()) else NOT_FINITE for each in attentions]


def _attend(batch: Tensor, network: TrainedNetwork, query: Query, target: int | None) -> list[ImageAttention]:
    net, (token, name) = network.net, query
    recording, logits = record_logits(net, batch)
    summaries = summaries_of(recording, logits, token, target)
    targets = torch.tensor([summary.target for summary in summaries], device=logits.device)
    inputs = AttributionInput(net, batch, recording, targets)
    queries = None if token is None else [token]
    methods = [each for each in drawn_methods() if each.supports(net) and (token is None or each.has_query)]
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
    base: Path, path: Path, image: SeenPicture, attention: ImageAttention, network: TrainedNetwork
) -> tuple[str, Path]:
    """Write ``BASE.attention.png`` and ``BASE.attention.npz``.

    Args:
        base: Folder and base name of the results.
        path: The image file.
        image: The image as the network sees it.
        attention: Its attention.
        network: The network.

    Returns:
        The prediction in words, and the path of the picture.
    """
    summary = attention.summary
    prediction = f"{_title(network, summary.predicted)} ({summary.probabilities[summary.predicted]:.0%})"
    name = shortened(printable(path.name), 80)
    if image.is_reshaped:
        name += f": {image.note}" + ", drawn in grey" * image.is_padded
    heading = f"{name}\n{network.card.architecture}\nprediction: {prediction}"
    picture, numbers = (base.with_name(f"{base.name}.attention.{ending}") for ending in ("png", "npz"))
    drawn = draw_attention(image, attention, heading, _title(network, summary.target))
    Image.fromarray(drawn).save(picture, optimize=True)
    others = {f"rows_{each.name}": row for each, row in attention.rows.items() if each.name not in SUMMARY_FIELDS}
    arrays: dict[str, Any] = vars(summary) | others
    names = np.array(network.card.label_names or [f"class {i}" for i in range(len(summary.probabilities))])
    seen = {"image": image.pixels, "box": image.box, "content": image.content, "picture_size": image.size}
    np.savez_compressed(numbers, class_names=names, path=str(path), **seen, **arrays)
    return prediction, picture


def _title(network: TrainedNetwork, index: int) -> str:
    """Return the class name, shortened to fit a picture."""
    return shortened(printable(network.class_name(index)), 80)


def draw_attention(image: SeenPicture, attention: ImageAttention, heading: str, target: str) -> np.ndarray:
    """Draw the image with its maps on one scale, above a sheet of all layers and heads.

    Args:
        image: The image as the network sees it.
        attention: Its attention.
        heading: Text above the picture: file, network and prediction.
        target: Name of the class that class-specific maps are for.
    """
    summary, prefix = attention.summary, attention.summary.num_prefix_tokens
    maps = [method_map(method, row, summary, target) for method, row in attention.rows.items()]
    patch = summary.query - prefix
    marks = [Mark("query", patch)] if patch >= 0 else []
    visible, mask = crop_to_patches(image.pixels, summary), _padding_of(image)
    padding = None if mask is None else crop_to_patches(mask, summary)[..., 0]
    rgb = visible.repeat(3, axis=2) if visible.shape[2] == 1 else visible
    of = f"attention of {attention.query}"
    width, across = WIDTH * ACROSS / 2, ACROSS if rgb.shape[1] < WIDE * rgb.shape[0] else ACROSS // 2
    top = draw_overlays(rgb, f"{heading}\n{of}, by method", maps, marks, 150, across, width, padding)
    of_heads = summary.heads[..., :prefix].sum(axis=-1) if prefix else None
    padded = None if padding is None else padded_patches(padding, summary.grid_size)
    maps_of_heads = summary.patches(summary.heads)
    sheet = draw_sheet(maps_of_heads, f"{of}, by layer and head", of_heads, 150, width=width, padding=padded)
    return stack([top, sheet])


def _padding_of(image: SeenPicture) -> Bool[np.ndarray, "height width 1"] | None:
    """Pixels that are padding, if any are."""
    if not image.is_padded:
        return None
    left, top, right, bottom = image.content
    padding = np.ones((*image.pixels.shape[:2], 1), dtype=bool)
    padding[top:bottom, left:right] = False
    return padding
