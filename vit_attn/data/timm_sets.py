"""Data sets through timm's prefixes: the hub's, TensorFlow's and webdataset's."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset

from vit_attn.data.folder import PHOTOS, complete
from vit_attn.data.splits import ItemPictures, Source, Split
from vit_attn.errors import UserError

PREFIXES = ("hfds", "hfids", "wds", "tfds", "torch")
PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow-datasets"}
"""What reads the sets of each prefix."""
SYNONYMS = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


def hub_source(name: str, root: Path | None, download: bool) -> Source:
    """A data set of the hub, ``hfds/…``, whose images are read by number.

    Raises:
        UserError: If it cannot be had, or has no classes.
    """
    train = open_timm(name, root, "train", download)
    found, names = _labels(train.reader, None, name)
    load = partial(_load, name, root, download, train, found, names)
    return Source(names, None, None, None, lambda _root, _download: load(), PHOTOS)


def _load(
    name: str, root: Path | None, download: bool, train: Any, found: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Split]:
    splits = {"train": _split(name, train.reader, found)}
    for ours, theirs in split_names(train.reader).items():
        if ours != "train":
            reader = open_timm(name, root, theirs, download).reader
            splits[ours] = _split(name, reader, _labels(reader, class_names, name)[0])
    return complete(splits, name, class_names)


def _split(name: str, reader: Any, labels: np.ndarray) -> Split:
    def open_item(number: int) -> Image.Image:
        return Image.open(reader[number][0])

    return Split(None, torch.from_numpy(labels), pictures=ItemPictures(open_item, name, np.arange(len(labels))))


def split_names(reader: Any) -> dict[str, str]:
    """Our names of the splits that a reader's data set has, with its own."""
    known = getattr(getattr(reader, "dataset", None), "info", None) or getattr(reader, "info", None)
    theirs = set(getattr(known, "splits", None) or ())
    return {
        ours: next(each for each in names if each in theirs) for ours, names in SYNONYMS.items() if theirs & set(names)
    }


def _labels(reader: Any, class_names: Sequence[str] | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices, and the names of the classes: those that the reader knows, else the labels themselves."""
    found = list(reader.iter_targets())
    names = class_names or tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.get))
    if names and all(isinstance(each, int) for each in found) and max(found) < len(names):
        return np.array(found, dtype=np.int64), tuple(names)
    names = tuple(names or (str(each) for each in sorted(set(found))))
    numbers = {each: number for number, each in enumerate(names)}
    if unknown := {str(each) for each in found} - numbers.keys():
        raise UserError(f"the classes of the splits of {name} differ: {min(unknown)!r} only in one of them")
    return np.array([numbers[str(each)] for each in found], dtype=np.int64), names


def open_timm(name: str, root: Path | str | None, split: str, download: bool, **options: Any) -> Any:
    """What ``timm.data.create_dataset`` opens.

    Raises:
        UserError: If a package is missing, or if the data set cannot be had.
    """
    prefix = name.partition("/")[0].lower()
    try:
        return create_dataset(
            name, root=None if root is None else str(root), split=split, download=download, input_img_mode="", **options
        )
    except (ModuleNotFoundError, ImportError) as error:
        package = PACKAGES[prefix]
        raise UserError(f"{name} needs a package that is not installed: pip install {package} ({error})") from error
    except UserError:
        raise
    except Exception as error:  # of the hub's and its readers' many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} cannot be had, split {split!r}: {reason}") from error
