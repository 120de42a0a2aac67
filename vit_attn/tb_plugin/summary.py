"""Writing for the Attention tab, from numpy arrays alone."""

import hashlib
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event  # pyrefly: ignore[missing-module-attribute]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from vit_attn.errors import UserError
from vit_attn.tb_plugin.blobs import HEADER, VERSION, encode_maps
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag, summary_metadata

TOP = 5
"""Classes whose probability is kept."""


@dataclass(frozen=True)
class ProbeImages:
    """The images that are looked at again and again.

    Args:
        pixels: As a person would see them, not normalised; height and width may differ.
        labels: Class of each.
        class_names: Names of the classes by index.
        answers: Where the data set knows it: for each image the patches that hold the answer, by name, such as
            ``{"bought": [12], "buyer": [40]}``; patches are numbered row by row from 0.
    """

    pixels: UInt8[np.ndarray, "B height width 3"]
    labels: Sequence[int]
    class_names: Sequence[str]
    answers: Sequence[Mapping[str, Sequence[int]]] | None = None


@dataclass(frozen=True)
class Tokens:
    """What the tokens of the maps are: prefix tokens first, then the patches row by row.

    Args:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Tokens before the patches: CLS and registers.
        pooled_rows: How much of each token the network pools, one row for all images or one an image; sums to 1.
        prefix_names: Names of the prefix tokens; by default CLS, then R1, R2, ….
        layer_names: Names of the layers; by default their numbers, from 1.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int
    pooled_rows: Float[np.ndarray, "_ N"]
    prefix_names: Sequence[str] | None = None
    layer_names: Sequence[str] | None = None

    @property
    def count(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]


def write_attention(  # noqa: PLR0913  what there is to see in a step
    writer: Any,
    step: int,
    probe: ProbeImages,
    probabilities: Float[np.ndarray, "B classes"],
    maps: Iterable[Float[np.ndarray, "B _ N N"]],
    tokens: Tokens,
    relevance: Float[np.ndarray, "B N N"] | None = None,
    verdicts: Sequence[Mapping[str, float] | None] | None = None,
    note: str = "",
) -> int:
    """Write one step for the Attention tab.

    Args:
        writer: A folder, or a writer of event files: torch's ``SummaryWriter`` or TensorBoard's ``EventFileWriter``.
        step: Training step; 0 is the untrained network.
        probe: The images.
        probabilities: What the network predicted.
        maps: Attention weights, a layer at a time, the first layer first; rows are queries. Layers may differ in heads.
        tokens: What the tokens of the maps are.
        relevance: Relevance of each token (column) to each token (row) for the predicted class.
        verdicts: Areas under the curves of deletion and insertion by relevance or rollout, and in random order:
            ``{"deletion": …, "insertion": …, "random_deletion": …, "random_insertion": …}``.
        note: What was left out, told on the page.

    Returns:
        Bytes of all blobs.

    Raises:
        UserError: If the arrays do not fit together.
    """
    _check(probe, probabilities, tokens, {"relevance": relevance, "verdicts": verdicts, "answers": probe.answers})
    images = [[_png(pixels)] for pixels in probe.pixels]
    heads = []
    for layer in maps:
        heads.append(_check_layer(layer, len(heads), len(images), tokens.count))
        for blobs, of_image in zip(images, layer, strict=True):
            blobs.append(encode_maps(of_image))
    if relevance is not None:
        for blobs, of_image in zip(images, relevance, strict=True):
            blobs.append(encode_maps(of_image[None]))
    index = _index(tokens, heads) | {"relevance": relevance is not None, "note": note}
    index["images"] = [_about(i, probe, probabilities[i], verdicts) for i in range(len(images))]
    if len(tokens.pooled_rows) > 1:
        for about, row in zip(index["images"], tokens.pooled_rows, strict=True):
            about["pooled"] = _rounded(row)
    series = {image_tag(i): blobs for i, blobs in enumerate(images)}
    series[INDEX_TAG] = [json.dumps(index).encode()]  # last: a step that is listed is there
    _write(writer, step, series)
    return sum(len(blob) for blobs in series.values() for blob in blobs)


def bytes_of_image(heads: Sequence[int], tokens: int, pixels: int, relevance: bool = False) -> int:
    """About the bytes that one image takes a step: its maps, and at most its pixels.

    Args:
        heads: Heads of each layer.
        tokens: Prefix tokens and patches.
        pixels: Height times width of the image.
        relevance: Whether its relevance is written.
    """
    maps = sum(heads) + relevance
    return (len(heads) + relevance) * HEADER.size + maps * tokens * (4 + tokens) + 3 * pixels + 1000


def _check(probe: ProbeImages, probabilities: np.ndarray, tokens: Tokens, others: Mapping[str, Any]) -> None:
    count = len(probe.pixels)
    lengths = {"labels": len(probe.labels), "probabilities": len(probabilities)}
    lengths |= {name: len(other) for name, other in others.items() if other is not None}
    for name, length in lengths.items():
        if length != count:
            raise UserError(f"{name} must be one an image, got {length} {name} for {count} images")
    if tokens.pooled_rows.shape[0] not in (1, count) or tokens.pooled_rows.shape[1] != tokens.count:
        raise UserError(
            f"pooled_rows must be (1 or {count}, {tokens.count}) for grid_size={tokens.grid_size}, "
            f"num_prefix_tokens={tokens.num_prefix_tokens}, got {tokens.pooled_rows.shape}"
        )


def _check_layer(layer: np.ndarray, index: int, images: int, tokens: int) -> int:
    if layer.ndim != 4 or layer.shape[0] != images or layer.shape[2:] != (tokens, tokens):
        raise UserError(f"maps of layer {index + 1} must be ({images}, heads, {tokens}, {tokens}), got {layer.shape}")
    return layer.shape[1]


def _index(tokens: Tokens, heads: Sequence[int]) -> dict[str, Any]:
    prefix = tokens.num_prefix_tokens
    return {
        "version": VERSION,
        "grid": list(tokens.grid_size),
        "prefix": list(tokens.prefix_names or ["CLS", *(f"R{i}" for i in range(1, prefix))][:prefix]),
        "layers": list(tokens.layer_names or map(str, range(1, 1 + len(heads)))),
        "heads": list(heads),
        "pooled": _rounded(tokens.pooled_rows[0]),
    }


def _about(
    image: int, probe: ProbeImages, chances: np.ndarray, verdicts: Sequence[Mapping[str, float] | None] | None
) -> dict[str, Any]:
    verdict = verdicts[image] if verdicts else None
    best = np.argsort(-chances, kind="stable")[:TOP]
    return {
        "label": probe.class_names[probe.labels[image]],
        "top": [[probe.class_names[i], _number(float(chances[i]))] for i in best],
        "right": int(best[0]) == probe.labels[image],
        "size": list(probe.pixels.shape[1:3]),
        "picture": _hash(probe.pixels[image]),
        "answer": None if probe.answers is None else {k: list(v) for k, v in probe.answers[image].items()},
        "verdict": verdict and {name: _number(float(value)) for name, value in verdict.items()},
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 6) if np.isfinite(value) else None


def _rounded(row: np.ndarray) -> list[float | None]:
    return [_number(value) for value in row.tolist()]


def _hash(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    """Tells one image from others, in whichever run and place it stands."""
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write(writer: Any, step: int, series: Mapping[str, list[bytes]]) -> None:
    events = []
    for tag, blobs in series.items():
        value = Summary.Value(tag=tag, tensor=make_tensor_proto(blobs), metadata=summary_metadata())
        events.append(Event(summary=Summary(value=[value]), step=step, wall_time=time.time()))
    if isinstance(writer, str | Path):
        _write_file(Path(writer), events)
        return
    target = writer._get_file_writer() if hasattr(writer, "_get_file_writer") else writer
    for event in events:
        target.add_event(event, *([step] if target is not writer else []))
    target.flush()


def _write_file(folder: Path, events: Sequence[Event]) -> None:
    """A file of its own, named so that files written within a second stay in their order: readers go by name."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time_ns()
    with (folder / f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.vit_attn").open("wb") as opened:
        writer = RecordWriter(opened)
        for event in (Event(wall_time=now / 1e9, file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString())
