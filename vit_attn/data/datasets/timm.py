"""Data sets by timm's prefixes: from the Hugging Face hub, TensorFlow Datasets and webdataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from vit_attn.data.datasets.files.folder import PHOTOS, complete
from vit_attn.data.datasets.image_list import ItemImageList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.streams import Stream, open_timm
from vit_attn.data.datasets.webdataset import class_names, find_shards
from vit_attn.data.images.image_file import open_image
from vit_attn.errors import UserError

SYNONYMS = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}
HIDDEN = (-1, None)
"""Labels of test images whose classes are not published."""


def hub_source(name: str, root: Path | None, download: bool) -> DatasetInfo:
    """Data set of the hub, ``hfds/…``, whose images are read by number.

    Raises:
        UserError: If it cannot be opened, or has no classes.
    """
    where = None if root is None else str(root)
    train = open_timm(name, where, "train", download=download)
    labelled = _labelled(train.reader)
    if not labelled.targets:
        raise UserError(f"{name} has no training image with a label")
    names = _names(train.reader, labelled.targets)
    remarks: list[str] = []
    load = partial(_load, name, where, (train, labelled), names, remarks)
    return DatasetInfo(names, None, None, None, load, PHOTOS, remarks=remarks)


def stream_source(name: str, root: Path | None, download: bool) -> DatasetInfo:
    """Data set that is read sequentially: ``hfids/…`` of the hub, ``tfds/…``.

    Raises:
        UserError: If it cannot be opened, or has no classes or no validation split.
    """
    where = None if root is None else str(root)
    reader = open_timm(name, where, "train", download=download).reader
    names = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.get))
    if not names:
        raise UserError(f"{name} does not tell its classes: its label is not a class label")
    splits = split_names(reader)
    if "val" not in splits:
        if not name.lower().startswith("tfds"):
            raise UserError(f"{name} has no validation split; hfds/… holds one out of the training images")
        splits |= {"train": "train[:90%]", "val": "train[90%:]"}  # which TensorFlow's data sets understand
    counts = {
        ours: open_timm(name, where, theirs, download=download).reader.num_samples for ours, theirs in splits.items()
    }
    return _streamed(names, {ours: Stream(name, where, splits[ours], counts[ours], download) for ours in splits})


def shards_source(name: str, root: Path | None, _download: bool) -> DatasetInfo:
    """Webdataset's tar files in a folder, ``wds/…``.

    Raises:
        UserError: If there are none, or if they are incomplete.
    """
    if root is None:
        raise UserError(f"{name} needs to know where: --data.root names the folder of the tar files")
    root = root.absolute()  # webdataset runs what follows in a relative folder called ``pipe:…``
    shards = find_shards(root)
    names = class_names(root, shards)
    open_timm(name, str(root), shards["train"].split)  # reports a missing package at once
    labelled = {ours: each for ours, each in shards.items() if each.labels}
    streams = {ours: Stream(name, str(root), each.split, len(each.labels)) for ours, each in labelled.items()}
    labels = {ours: torch.tensor(each.labels) for ours, each in labelled.items()}
    source = _streamed(names, streams, labels)
    return replace(
        source, remarks=[f"{ours} has no classes and is left out" for ours in shards.keys() - labelled.keys()]
    )


BY_PREFIX: Mapping[str, Callable[[str, Path | None, bool], DatasetInfo]] = {
    "hfds": hub_source,
    "hfids": stream_source,
    "tfds": stream_source,
    "wds": shards_source,
}


def _streamed(
    names: tuple[str, ...], streams: Mapping[str, Stream], labels: Mapping[str, torch.Tensor] | None = None
) -> DatasetInfo:
    none = torch.empty(0, dtype=torch.long)
    splits = {ours: Split(None, (labels or {}).get(ours, none), stream=each) for ours, each in streams.items()}
    return DatasetInfo(names, None, None, None, partial(_opened, splits), PHOTOS)


def _opened(splits: Mapping[str, Split], _root: Path, _download: bool) -> dict[str, Split]:
    return dict(splits)


class Labelled(NamedTuple):
    """Items of a reader that have a label: their numbers, their labels, and the number of other items."""

    indices: np.ndarray
    targets: list[Any]
    hidden: int


def _labelled(reader: Any) -> Labelled:
    targets = list(reader.iter_targets())
    indices = [number for number, each in enumerate(targets) if each not in HIDDEN]
    return Labelled(np.array(indices, dtype=int), [targets[i] for i in indices], len(targets) - len(indices))


def _load(
    name: str,
    root: str | None,
    train: tuple[Any, Labelled],
    names: tuple[str, ...],
    remarks: list[str],
    _root: Path,
    _download: bool,
) -> dict[str, Split]:
    found = {"train": (train[0].reader, train[1])}
    for ours, theirs in split_names(train[0].reader).items():
        if ours != "train":
            reader = open_timm(name, root, theirs).reader
            found[ours] = (reader, _labelled(reader))
    remarks[:] = [
        f"{split} has no classes and is left out ({items.hidden} images)"
        if not items.targets
        else f"left out {items.hidden} images without a label in {split}"
        for split, (_, items) in found.items()
        if items.hidden
    ]
    splits = {split: _split(name, *each, names) for split, each in found.items() if each[1].targets}
    return complete(splits, name, names)


def _split(name: str, reader: Any, items: Labelled, names: tuple[str, ...]) -> Split:
    pictures = ItemImageList(partial(_open_item, reader), name, items.indices)
    return Split(None, torch.from_numpy(_numbers(items.targets, names, name)), pictures=pictures)


def _open_item(reader: Any, number: int) -> Image.Image:
    return open_image(reader[number][0])


def split_names(reader: Any) -> dict[str, str]:
    """Splits of a reader's data set: its name of each by ours."""
    known = getattr(getattr(reader, "dataset", None) or getattr(reader, "builder", None), "info", None)
    theirs = set(getattr(known, "splits", None) or ())
    return {
        ours: next(each for each in names if each in theirs) for ours, names in SYNONYMS.items() if theirs & set(names)
    }


def _names(reader: Any, found: Sequence[Any]) -> tuple[str, ...]:
    """Names of the classes: the reader's, in its order, else the labels themselves."""
    known = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.get))
    return known or tuple(str(each) for each in sorted(set(found)))


def _numbers(found: Sequence[Any], names: Sequence[str], name: str) -> np.ndarray:
    """Class indices."""
    if all(isinstance(each, int) and 0 <= each < len(names) for each in found):
        return np.array(found, dtype=np.int64)
    numbers = {each: number for number, each in enumerate(names)}
    if unknown := {str(each) for each in found} - numbers.keys():
        raise UserError(f"a split of {name} has the class {min(unknown)!r}, which its training images have not")
    return np.array([numbers[str(each)] for each in found], dtype=np.int64)
