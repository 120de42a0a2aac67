"""Pictures of a network's attention on the probe images, and what they are drawn from."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from torch import Tensor

from vit_attn.attention_maps.evaluation.ground_truth import patches_of_region
from vit_attn.attention_maps.methods.rollout import fuse
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.plotting.canvas import Picture
from vit_attn.plotting.overlay import AttentionMap, Mark, draw_matrices, draw_overlays, draw_sheet, patch_fractions

METHODS = ("relevance", "last layer", "rollout")
MOST_TOKENS = 400
"""Tokens above which a matrix of them has more cells than a picture has pixels, and is left out."""


@dataclass(frozen=True)
class Snapshot:
    """What the pictures of one step are drawn from: arrays, free of the network.

    Args:
        views: Where what is pooled looks, by image.
        matrices: Every token against every token, by image and layer, heads averaged; none for many tokens.
        layers: Numbers of the layers that are drawn, from 0.
        pools_by_attention: Whether the last row of a view is the pool's.
    """

    views: list[AttentionSummary]
    matrices: Float[np.ndarray, "B L N N"] | None
    layers: tuple[int, ...]
    pools_by_attention: bool


def snapshot(recording: Recording, views: list[AttentionSummary], layers: Sequence[int] | None = None) -> Snapshot:
    """Take what is drawn from a recording.

    Args:
        recording: One forward of the probe images.
        views: Their views.
        layers: Layers to draw, by number; all by default.
    """
    chosen = tuple(range(len(recording)) if layers is None else (range(len(recording))[layer] for layer in layers))
    matrices = None
    if recording.num_tokens <= MOST_TOKENS:
        fused = [fuse(recording[layer].weights()).cpu().numpy() for layer in chosen]
        matrices = np.stack(fused, axis=1)
    return Snapshot(views, matrices, chosen, recording.pool is not None)


def pictures(
    taken: Snapshot, probe: Any, class_names: Sequence[str], methods: Sequence[str] = METHODS
) -> Iterator[tuple[str, Picture]]:
    """Each picture with its tag, which numbers images from 1: overlays, sheets of heads, and matrices of tokens."""
    for i, view in enumerate(taken.views):
        yield f"attention/image_{i + 1}", overlay(taken, probe, i, class_names, methods)
        title = _title(probe, i, view, class_names, " ")
        heads = view.heads[list(taken.layers)]
        prefix = heads[..., : view.num_prefix_tokens].sum(axis=-1) if view.num_prefix_tokens else None
        yield f"attention_heads/image_{i + 1}", draw_sheet(view.patches(heads), title, prefix, numbers=taken.layers)
        if taken.matrices is not None:
            yield (
                f"attention_matrices/image_{i + 1}",
                draw_matrices(taken.matrices[i], view.num_prefix_tokens, title, numbers=taken.layers),
            )


def add_picture(writer: Any, tag: str, picture: Picture, step: int) -> None:
    """Write a picture to TensorBoard; ``add_image`` compresses it a little more in twice the time."""
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG", compress_level=1)
    height, width, _ = picture.shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png.getvalue())
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def overlay(
    taken: Snapshot,
    probe: Any,
    index: int,
    class_names: Sequence[str],
    methods: Sequence[str] = METHODS,
    dpi: int = 100,
) -> Picture:
    """The image, and over it where what is pooled looks by each method, on one numeric scale.

    Args:
        taken: What is drawn.
        probe: The images' ``images`` (uint8), ``labels`` and, where known, ``answers``.
        index: Which of the images.
        class_names: Names of the classes.
        methods: Of ``METHODS``; relevance is for the class that was predicted, in shares of what fell on patches.
        dpi: Pixels an inch; 100 is for TensorBoard.
    """
    view = taken.views[index]
    related = view.patches(view.relevance)
    maps = {
        "last layer": _map("pool" if taken.pools_by_attention else "last layer", view.last, view),
        "rollout": _map("rollout", view.rollout, view),
        "relevance": AttentionMap("relevance", patch_fractions(related), note=f"for {class_names[view.target]}"),
    }
    title = _title(probe, index, view, class_names, "\n")
    image = crop_to_patches(_pixels(probe.images[index]), view)
    return draw_overlays(image, title, [maps[method] for method in methods], _marks(probe, index, view), dpi)


def pointing(taken: Snapshot, probe: Any) -> dict[str, float]:
    """Share of the images in which the top patch of each method is the answer; nothing where it is not known."""
    bought = patches_of_region(probe, taken.views[0], "bought")
    if bought is None:
        return {}
    hits: dict[str, list[bool]] = {method: [] for method in METHODS}
    for view, answer in zip(taken.views, bought, strict=True):
        for method, row in zip(METHODS, (view.relevance, view.last, view.rollout), strict=True):
            hits[method].append(int(row[view.num_prefix_tokens :].argmax()) in answer)
    patches = view.patches(view.last).size
    return {method.replace(" ", "_"): sum(found) / len(found) for method, found in hits.items()} | {
        "chance": sum(map(len, bought)) / len(bought) / patches
    }


def _title(probe: Any, index: int, view: AttentionSummary, class_names: Sequence[str], between: str) -> str:
    label, guess = int(probe.labels[index]), view.predicted
    return f"{class_names[label]}{between}→ {class_names[guess]} {'✓' if guess == label else '✗'}"


def _map(name: str, row: np.ndarray, view: AttentionSummary) -> AttentionMap:
    return AttentionMap(name, view.patches(row), float(row[: view.num_prefix_tokens].sum()))


def _marks(probe: Any, index: int, view: AttentionSummary) -> list[Mark]:
    bought, buyer = (patches_of_region(probe, view, name) for name in ("bought", "buyer"))
    if bought is None or buyer is None:
        return []
    return [_block("bought", bought[index], view), _block("buyer", buyer[index], view, "dotted")]


def _block(
    name: str, patches: tuple[int, ...], view: AttentionSummary, line: Literal["solid", "dotted"] = "solid"
) -> Mark:
    """The outline around the patches that a data set's one patch is made of."""
    (top, left), (bottom, right) = (divmod(patch, view.grid_size[1]) for patch in (patches[0], patches[-1]))
    return Mark(name, patches[0], line, bottom - top + 1, right - left + 1)


def _pixels(image: Tensor) -> np.ndarray:
    """(height, width, 3) of an image of one or three channels."""
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()
