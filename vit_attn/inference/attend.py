"""Attention maps of image files, as pictures and as numbers."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vit_attn.attention_maps.precision import NotFinite
from vit_attn.attention_maps.recording.token_layout import crop_to_patches, token_layout
from vit_attn.attention_maps.recording.tokens import find_token, prefix_names, token_name
from vit_attn.attention_maps.summary import AttentionSummary, summarize
from vit_attn.errors import printable, shortened
from vit_attn.inference.network import TrainedNetwork
from vit_attn.plotting.overlay import AttentionMap, Mark, draw_overlays, draw_sheet, patch_fractions, stack

STEM_BYTES = 200
"""Longest beginning of a file name that is kept, of the 255 bytes that a file system allows."""
POOLED = "what the network pools"


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
        query: The query token in words.
    """

    summary: AttentionSummary
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
        summaries, query = _summarize(images, network, settings)
    except NotFinite:
        if len(images) == 1:
            return [None]
        return [attention for image in images for attention in attend([image], network, settings)]
    return [ImageAttention(each, query) if math.isfinite(each.probabilities.sum()) else None for each in summaries]


def _summarize(
    images: Sequence[np.ndarray], network: TrainedNetwork, settings: MapSettings
) -> tuple[list[AttentionSummary], str]:
    net = network.net
    batch = network.normalize(images, next(net.parameters()).device)
    if settings.query is None:
        return summarize(net, batch, None, settings.target), POOLED
    layout = token_layout(net, batch)
    prefix = prefix_names(net, layout.num_prefix_tokens)
    query = find_token(settings.query, layout, prefix)
    return summarize(net, batch, query, settings.target), token_name(query, layout, prefix)


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
    picture, numbers = (base.with_name(f"{base.name}.attention.{ending}") for ending in ("png", "npz"))
    words = (prediction, _title(network, summary.target), attention.query)
    Image.fromarray(draw_attention(image, summary, words)).save(picture, optimize=True)
    names = np.array(network.card.label_names or [f"class {i}" for i in range(len(summary.probabilities))])
    np.savez_compressed(numbers, image=image, class_names=names, path=str(path), **vars(summary))
    return prediction, picture


def _title(network: TrainedNetwork, index: int) -> str:
    """Return the class name, shortened to fit a picture."""
    return shortened(printable(network.class_name(index)), 80)


def draw_attention(image: np.ndarray, summary: AttentionSummary, words: tuple[str, str, str]) -> np.ndarray:
    """Draw the image with its maps on one scale, above a sheet of all layers and heads.

    Args:
        image: Pixels (height, width, channels).
        summary: Its attention.
        words: The prediction, for the title; the class whose relevance is mapped; the query token.
    """
    prediction, target, query = words

    def on_prefix(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[..., : summary.num_prefix_tokens].sum(axis=-1))

    maps = [AttentionMap("relevance", patch_fractions(summary.patches(summary.relevance)), note=f"for {target}")]
    rows = {"pool" if summary.pool else "last layer": summary.last, "rollout": summary.rollout}
    maps += [AttentionMap(title, summary.patches(row), float(on_prefix(row))) for title, row in rows.items()]
    patch = summary.query - summary.num_prefix_tokens
    marks = [Mark("query", patch)] if patch >= 0 else []
    visible = crop_to_patches(image, summary)
    rgb = visible.repeat(3, axis=2) if visible.shape[2] == 1 else visible
    top = draw_overlays(rgb, prediction, maps, marks, dpi=150)
    of_heads = on_prefix(summary.heads) if summary.num_prefix_tokens else None
    title = f"{query}, in each layer and head"
    return stack([top, draw_sheet(summary.patches(summary.heads), title, of_heads, dpi=150)])
