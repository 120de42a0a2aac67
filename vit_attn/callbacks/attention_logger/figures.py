"""Figures of a snapshot: maps over their image, all heads, and token-to-token matrices."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vit_attn.attention_maps.evaluation.ground_truth import region_title
from vit_attn.attention_maps.methods.registry import AttributionMethod
from vit_attn.attention_maps.methods.rollout import fuse
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.token_layout import crop_to_patches
from vit_attn.attention_maps.summary import MAX_MATRIX_TOKENS
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.callbacks.tags import ATTENTION as GROUP
from vit_attn.plotting.canvas import DPI
from vit_attn.plotting.matrices import draw_matrices
from vit_attn.plotting.method_maps import method_map
from vit_attn.plotting.overlay import Mark, draw_overlays, draw_sheet
from vit_attn.plotting.scale import Picture
from vit_attn.tb_plugin.event_file import use_fast_checksums

POOLED = "what the network pools"


def figures(
    snapshot: AttentionSnapshot,
    class_names: Sequence[str],
    methods: Sequence[AttributionMethod] | None = None,
    layers: Sequence[int] | None = None,
    run: str = "",
) -> Iterator[tuple[str, Picture]]:
    """Draw each figure of a snapshot, with its tag, which numbers images from 1.

    Args:
        snapshot: Snapshot of a step.
        class_names: Names of the classes.
        methods: Methods that are drawn over the images; all of the snapshot by default.
        layers: Indices of the layers that are drawn; all by default.
        run: Name of the run.
    """
    layers = tuple(range(len(snapshot.recording))) if layers is None else tuple(layers)
    depth = len(snapshot.recording)
    drawn = "" if len(layers) == depth else f" (layers {', '.join(str(layer + 1) for layer in layers)} of {depth})"
    matrices = _matrices(snapshot.recording, layers)
    for i, summary in enumerate(snapshot.summaries):
        tag, heading = f"{GROUP}/image_{i + 1}", _heading(snapshot, i, class_names, run)
        yield tag, overlay(snapshot, i, class_names, methods, run=run)
        prefix = summary.num_prefix_tokens
        heads = summary.heads[list(layers)]
        on_prefix = heads[..., :prefix].sum(axis=-1) if prefix else None
        title = f"{heading}\nattention of {POOLED}, by layer and head{drawn}"
        yield f"{tag}_heads", draw_sheet(summary.patches(heads), title, on_prefix, numbers=layers)
        if matrices is not None:
            title = f"{heading}\nattention from every token to every token, mean of heads{drawn}"
            yield f"{tag}_matrices", draw_matrices(matrices[i], prefix, title, numbers=layers)


def overlay(
    snapshot: AttentionSnapshot,
    index: int,
    class_names: Sequence[str],
    methods: Sequence[AttributionMethod] | None = None,
    dpi: int = DPI,
    run: str = "",
    across: int = 2,
) -> Picture:
    """Draw an image, and over it the pooled row's map by each method, on one numeric scale.

    Args:
        snapshot: Snapshot of a step.
        index: Index of the image.
        class_names: Names of the classes.
        methods: Methods that are drawn; all of the snapshot by default.
        dpi: Pixels per inch.
        run: Name of the run.
        across: Panels a row; two for TensorBoard.
    """
    summary = snapshot.summaries[index]
    maps = [
        method_map(method, snapshot.rows[method][index], summary, class_names[summary.target])
        for method in methods or snapshot.rows
    ]
    pixels = visible_pixels(snapshot.probe.images[index], snapshot.recording)
    heading = f"{_heading(snapshot, index, class_names, run)}\nattention of {POOLED}, by method"
    return draw_overlays(pixels, heading, maps, _marks(snapshot, index), dpi, across)


def add_picture(writer: SummaryWriter, tag: str, picture: Picture, step: int) -> None:
    """Write a picture to TensorBoard; ``add_image`` would compress it a little more, in longer."""
    use_fast_checksums()
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG", compress_level=1)
    height, width, _ = picture.shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png.getvalue())
    files: Any = writer._get_file_writer()
    files.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def figure_heading(run: str, step: int, network: str) -> str:
    """Return the first lines of a figure: the run, unless it has no name, the step of its training, and the network."""
    return f"{run}{', ' if run else ''}step {step:,}\n{network}"


def prediction_line(label: str, predicted: str, correct: bool) -> str:
    """Return the label and the prediction of an image, as such."""
    return f"label: {label}; prediction: {predicted} {'✓' if correct else '✗'}"


def visible_pixels(
    image: UInt8[Tensor, "C height width"], recording: Recording
) -> UInt8[np.ndarray, "height_ width_ 3"]:
    """Return the part of an image of one or three channels that the network's patches cover."""
    return crop_to_patches(image.expand(3, -1, -1).permute(1, 2, 0).numpy(), recording)


def blocks(patches: Sequence[int], cols: int) -> list[tuple[int, int, int]]:
    """Cover patches by rectangles of patches: the first patch of each, its rows and its columns.

    >>> blocks([10, 11, 14, 15, 3], cols=4)
    [(3, 1, 1), (10, 2, 2)]
    """
    runs: list[list[int]] = []  # row, first column, last column
    for row, col in (divmod(patch, cols) for patch in sorted(set(patches))):
        if runs and runs[-1][0] == row and runs[-1][2] == col - 1:
            runs[-1][2] = col
        else:
            runs.append([row, col, col])
    heights: dict[tuple[int, int, int], int] = {}  # by the first row and both columns
    for row, first, last in runs:
        above = [top for top, *span in heights if span == [first, last] and top + heights[top, first, last] == row]
        top = above[0] if above else row
        heights[top, first, last] = row - top + 1
    return [(top * cols + first, height, last - first + 1) for (top, first, last), height in heights.items()]


def _matrices(recording: Recording, layers: Sequence[int]) -> Float[np.ndarray, "B L N N"] | None:
    """Return the token-to-token attention of each image and layer, heads averaged; none for many tokens."""
    if recording.num_tokens > MAX_MATRIX_TOKENS:
        return None
    return np.stack([fuse(recording[layer].weights()).cpu().numpy() for layer in layers], axis=1)


def _heading(snapshot: AttentionSnapshot, index: int, class_names: Sequence[str], run: str) -> str:
    label, predicted = int(snapshot.probe.labels[index]), snapshot.summaries[index].predicted
    prediction = prediction_line(class_names[label], class_names[predicted], predicted == label)
    return f"{figure_heading(run, snapshot.step, snapshot.network)}\n{prediction}"


def _marks(snapshot: AttentionSnapshot, index: int) -> list[Mark]:
    """Outline the answer region solid, and regions that do not contain it dotted."""
    if snapshot.ground_truth is None:
        return []
    truth = snapshot.ground_truth[index]
    answer = truth.regions.get(truth.answer, ())
    others = {name: patches for name, patches in truth.regions.items() if name != truth.answer}
    if answer:
        others = {name: patches for name, patches in others.items() if not set(answer) <= set(patches)}
    marks = []
    for name, patches in {truth.answer: answer, **others}.items():
        line: Literal["solid", "dotted"] = "solid" if name == truth.answer else "dotted"
        marks += [
            Mark(region_title(name), first, line, rows, cols) for first, rows, cols in blocks(patches, truth.grid[1])
        ]
    return marks
