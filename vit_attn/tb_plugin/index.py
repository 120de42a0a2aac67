"""Index of a step: everything but pixels and maps, as JSON. Described in docs/format.md."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from vit_attn.tb_plugin.blobs import VERSION
from vit_attn.tb_plugin.inputs import Faithfulness, HeadMeasures, Measures, MethodRows, QueriesKeys, TabImages, Tokens

TOP_CLASSES = 5
"""Classes whose probability is kept."""


def build_index(
    images: TabImages,
    probabilities: Float[np.ndarray, "B classes"],
    tokens: Tokens,
    heads: Sequence[int],
    methods: Sequence[MethodRows],
    faithfulness: Faithfulness | None,
) -> dict[str, Any]:
    """Build the part of the index about the network, the methods and the images.

    Args:
        images: Images of the step.
        probabilities: Predicted probabilities.
        tokens: Tokens of the maps.
        heads: Heads of each layer.
        methods: Attribution methods.
        faithfulness: Deletion and insertion, compared with baselines.
    """
    prefix = tokens.num_prefix_tokens
    index: dict[str, Any] = {
        "version": VERSION,
        "grid": list(tokens.grid_size),
        "prefix": list(tokens.prefix_names or ["CLS", *(f"R{i}" for i in range(1, prefix))][:prefix]),
        "layers": list(tokens.layer_names or map(str, range(1, 1 + len(heads)))),
        "heads": list(heads),
        "pooled": _plain(tokens.pooled_rows[0]),
        "methods": [_method(each) for each in methods],
        "images": [_image(i, images, probabilities[i], methods) for i in range(len(images.pixels))],
    }
    _add(index["images"], "pooled", tokens.pooled_rows if len(tokens.pooled_rows) > 1 else None)
    _add(index["images"], "pooled_relevance", tokens.pooled_relevance)
    if faithfulness is not None:
        overall = _plain(faithfulness.overall)
        index["judged"] = {"orders": faithfulness.orders, "images": faithfulness.images, "methods": overall}
        _add(index["images"], "judged", faithfulness.by_image)
    return index


def _add(images: Sequence[dict[str, Any]], name: str, values: Sequence[Measures] | np.ndarray | None) -> None:
    """Add a value to each image, where there are any."""
    if values is not None:
        for image, value in zip(images, values, strict=True):
            image[name] = _plain(value)


def _method(method: MethodRows) -> dict[str, Any]:
    names = ("name", "label", "reference", "class_specific", "has_query")
    return {name: getattr(method, name) for name in names} | {"rows": method.rows is not None}


def _image(
    number: int, images: TabImages, chances: Float[np.ndarray, " classes"], methods: Sequence[MethodRows]
) -> dict[str, Any]:
    top = top_classes(chances, images.class_names)
    truth = None if images.ground_truth is None else images.ground_truth[number]
    unlabelled = images.labels[number] < 0
    image: dict[str, Any] = {
        "label": None if unlabelled else images.class_names[images.labels[number]],
        "top": top,
        "right": None if unlabelled else int(_ranking(chances)[0]) == images.labels[number],
        "size": list(images.pixels.shape[1:3]),
        "picture": _hash(images.pixels[number]),
        "ground_truth": None if truth is None else {name: list(patches) for name, patches in truth.items()},
        "answer_region": None if images.answers is None else images.answers[number],
    }
    if images.names is not None:
        image["name"] = images.names[number]
    if rows := {each.name: each.rows[number] for each in methods if each.rows is not None}:
        image["rows"] = {name: _significant_row(row) for name, row in rows.items()}
    if images.targets is not None:
        image["targets"] = [images.class_names[target] for target in images.targets[number]]
        by_target = {each.name: each.target_rows[number] for each in methods if each.target_rows is not None}
        image["target_rows"] = {name: list(map(_significant_row, rows)) for name, rows in by_target.items()}
    return image


def top_classes(chances: Float[np.ndarray, " classes"], names: Sequence[str]) -> list[list[Any]]:
    """List the most probable classes, each with its name and probability."""
    return [[names[i], _number(float(chances[i]))] for i in _ranking(chances)[:TOP_CLASSES]]


def _ranking(chances: Float[np.ndarray, " classes"]) -> Int64[np.ndarray, " classes"]:
    return np.argsort(-chances, kind="stable")


def add_details(index: dict[str, Any], measures: HeadMeasures | None, queries_keys: QueriesKeys | None) -> None:
    """Add the heads' measures, and which images have queries and keys.

    Args:
        index: Index of a step.
        measures: Measures of each layer and head.
        queries_keys: Queries and keys of the first images.
    """
    if measures is not None:
        index["head_measures"] = {
            name: [_significant_row(heads) for heads in by_layer] for name, by_layer in measures.items()
        }
    if queries_keys is not None:
        index["score_scale"] = [None if scale is None else float(scale) for scale in queries_keys.scales]
        for i, image in enumerate(index["images"]):
            image["queries_keys"] = i < queries_keys.images


def measures_of_run(indices: Mapping[int, Sequence[bytes]]) -> dict[str, Any]:
    """Collect the heads' measures of all steps, with the layers and heads of the last step.

    Args:
        indices: Blobs of the index of each step; one that cannot be read has no measures.
    """
    steps = sorted(indices)
    found = [_parse(indices[step]) for step in steps]
    last = found[-1] if found else {}
    return {
        "steps": steps,
        "measures": [index.get("head_measures") for index in found],
        "layers": last.get("layers", []),
        "heads": last.get("heads", []),
    }


def _parse(blobs: Sequence[bytes]) -> dict[str, Any]:
    try:
        index = json.loads(blobs[0])
    except (ValueError, LookupError, RecursionError):
        return {}
    return index if isinstance(index, dict) else {}


def _significant_row(row: Sequence[float] | np.ndarray) -> list[float | None]:
    return [_significant(float(value)) for value in row]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 6) if np.isfinite(value) else None


def _significant(value: float) -> float | None:
    """Four significant digits, as exact as the maps' 8 bits: maps of a class may be of any size."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Mappings, rows and numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence | np.ndarray):
        return [_plain(each) for each in value]
    return _number(float(value))


def _hash(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    """Hash of an image, by which the page recognises it in other runs."""
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
