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

from vit_attn.errors import UserError, did_you_mean
from vit_attn.tb_plugin.blobs import HEADER, VERSION, encode_maps
from vit_attn.tb_plugin.metadata import INDEX_TAG, image_tag, summary_metadata
from vit_attn.tb_plugin.sinks import describe_sinks, often_attended

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
        pooled_relevance: Relevance of each token to what is pooled, where that is no mix of tokens' relevance: for a
            pool by attention.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int
    pooled_rows: Float[np.ndarray, "_ N"]
    prefix_names: Sequence[str] | None = None
    layer_names: Sequence[str] | None = None
    pooled_relevance: Float[np.ndarray, "B N"] | None = None

    @property
    def count(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]


Measures = Mapping[str, Mapping[str, Sequence[float]]]
"""By method and by ``deletion`` and ``insertion``: value, mean of the random orders, margin above which a difference to
it counts, value of centre first, and margin of that."""
POOLED_LAYER = "last layer, pooled"
"""The last layer's rows, mixed as a pool by attention weighs them: the page's view of the last layer of such a network,
whose "last layer" is the pool's own row."""
METHODS = ("relevance", "last layer", POOLED_LAYER, "rollout, mean", "rollout, max", "rollout, min")
"""Maps of the pooled row that may have a verdict."""


@dataclass(frozen=True)
class Verdicts:
    """What deletion and insertion say of the maps of several methods; a method that is not here was not judged.

    Args:
        orders: Random orders that each image's maps were compared with.
        images: Images that ``overall`` is of.
        overall: Over all images.
        by_image: The same of each image that is written.
    """

    orders: int
    images: int
    overall: Measures
    by_image: Sequence[Measures]


def write_attention(  # noqa: PLR0913  what there is to see in a step
    writer: Any,
    step: int,
    probe: ProbeImages,
    probabilities: Float[np.ndarray, "B classes"],
    maps: Iterable[Float[np.ndarray, "B _ N N"]],
    tokens: Tokens,
    relevance: Float[np.ndarray, "B N N"] | None = None,
    verdicts: Verdicts | None = None,
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
        verdicts: Areas under the curves of deletion and insertion, beside those of random orders and centre first.
        note: What was left out, told on the page.

    Returns:
        Bytes of all blobs.

    Raises:
        UserError: If the arrays do not fit together.
    """
    by_image = None if verdicts is None else verdicts.by_image
    _check_measures([] if verdicts is None else [verdicts.overall, *verdicts.by_image])
    others = {"relevance": relevance, "verdicts": by_image, "answers": probe.answers}
    _check(probe, probabilities, tokens, others | {"pooled_relevance": tokens.pooled_relevance})
    images = [[_png(pixels)] for pixels in probe.pixels]
    heads, often = [], []
    for layer in maps:
        heads.append(_check_layer(layer, len(heads), len(images), tokens.count))
        often.append(often_attended(layer))
        for blobs, of_image in zip(images, layer, strict=True):
            blobs.append(encode_maps(of_image))
    if relevance is not None:
        for blobs, of_image in zip(images, relevance, strict=True):
            blobs.append(encode_maps(of_image[None]))
    index = _index(tokens, heads) | {"relevance": relevance is not None, "note": note}
    index["sinks"] = describe_sinks(often, [blobs[0] for blobs in images])
    index["images"] = [_about(i, probe, probabilities[i]) for i in range(len(images))]
    if verdicts is not None:
        index["judged"] = {"orders": verdicts.orders, "images": verdicts.images, "methods": _plain(verdicts.overall)}
    by_name = {
        "pooled": tokens.pooled_rows if len(tokens.pooled_rows) > 1 else None,
        "pooled_relevance": tokens.pooled_relevance,
        "judged": by_image,
    }
    for name, values in by_name.items():
        for about, each in zip(index["images"], () if values is None else values, strict=values is not None):
            about[name] = _plain(each)
    series = {image_tag(i): blobs for i, blobs in enumerate(images)}
    series[INDEX_TAG] = [json.dumps(index).encode()]  # last: a step that is listed is there
    _write(writer, step, series)
    return sum(len(blob) for blobs in series.values() for blob in blobs)


def bytes_of_image(heads: Sequence[int], tokens: int, pixels: int, relevance: bool = False) -> int:
    """Bytes that one image takes a step at most: its maps, its pixels, and its part of the index.

    Args:
        heads: Heads of each layer.
        tokens: Prefix tokens and patches.
        pixels: Height times width of the image.
        relevance: Whether its relevance is written.
    """
    maps = sum(heads) + relevance
    about = 2500 + 20 * tokens  # classes and verdicts; two rows as text
    return (len(heads) + relevance) * HEADER.size + maps * tokens * (4 + tokens) + 3 * pixels + about


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


def _check_measures(found: Sequence[Measures]) -> None:
    for measures in found:
        for method, each in measures.items():
            if method not in METHODS:
                raise UserError(
                    f"verdicts must be of {', '.join(METHODS)}, got {method!r}{did_you_mean(method, METHODS)}"
                )
            if set(each) != {"deletion", "insertion"} or any(len(values) != 5 for values in each.values()):
                raise UserError(f"the verdict of {method} must have deletion and insertion with five numbers each")


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
        "pooled": _plain(tokens.pooled_rows[0]),
    }


def _about(image: int, probe: ProbeImages, chances: np.ndarray) -> dict[str, Any]:
    best = np.argsort(-chances, kind="stable")[:TOP]
    return {
        "label": probe.class_names[probe.labels[image]],
        "top": [[probe.class_names[i], _number(float(chances[i]))] for i in best],
        "right": int(best[0]) == probe.labels[image],
        "size": list(probe.pixels.shape[1:3]),
        "picture": _hash(probe.pixels[image]),
        "answer": None if probe.answers is None else {k: list(v) for k, v in probe.answers[image].items()},
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 6) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Mappings, rows and numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence | np.ndarray):
        return [_plain(each) for each in value]
    return _number(float(value))


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
