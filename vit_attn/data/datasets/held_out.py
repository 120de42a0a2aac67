"""Holding out of validation and test images for data sets without such splits."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt64

from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.errors import UserError

HELD_OUT = 0.1
"""Fraction of the images that is held out for validation, and again for the test."""

TrainSplit = Literal["train", "train+val"]


def choose_train_split(source: DatasetInfo, train_split: TrainSplit) -> DatasetInfo:
    """Data set whose training images include those that were held out of them for validation, if so chosen.

    Args:
        source: The data set.
        train_split: ``train``, or ``train+val``.
    """
    return source if train_split == "train" else replace(source, load=partial(_load_with_held_out, source))


def _load_with_held_out(source: DatasetInfo, root: Path, download: bool) -> dict[str, Split]:
    splits = source.load(root, download)
    train, val = splits["train"], splits["val"]
    if not val.held_out or train.images is None or val.images is None:
        raise UserError(
            "data.train_split=train+val is for data sets that hold validation images out of training images in memory, "
            "such as cifar10 and cifar100: leave it out"
        )
    images, labels = torch.cat([train.images, val.images]), torch.cat([train.labels, val.labels])
    return splits | {"train": replace(train, images=images, labels=labels)}


def choose_fraction(source: DatasetInfo, held_out: float | None) -> DatasetInfo:
    """Data set that holds out another fraction of its images.

    Args:
        source: The data set.
        held_out: Fraction of the images that is held out for validation, and again for the test where that is held out,
            too; None for the data set's own.

    Raises:
        UserError: If it is not above 0 and below a half, or if the data set has validation images of its own.
    """
    if held_out is None:
        return source
    if not 0 < held_out < 0.5:
        raise UserError(f"held_out must be above 0 and below 0.5, got {held_out}")
    if not source.holds_out:
        raise UserError("the data set has validation images of its own: leave out --data.held_out")
    load: Callable[..., dict[str, Split]] = source.load
    return replace(source, load=partial(load, held_out=held_out))


def stratified_split(labels: Sequence[int], held_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices to keep and to hold out, the same fraction of every class up to one image.

    >>> keep, held = stratified_split([0, 1] * 50, 10)
    >>> len(keep), sorted(index % 2 for index in held.tolist())
    (90, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    chosen = np.linspace(0, len(labels), held_out, endpoint=False).astype(int)  # evenly spaced over the classes
    held = np.zeros(len(labels), dtype=bool)
    held[by_class[chosen]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def partition(
    split: Split, parts: int, where: str, class_names: Sequence[str], held_out: float = HELD_OUT
) -> list[Split]:
    """Partition a split: a fraction of each class for each held-out part; every part has at least one image of it.

    The choice depends on hashes of the files' names. So images that are added later come to all parts, and few of the
    others change theirs if classes have a hundred images or more.

    Args:
        split: All images.
        parts: 2 for training and validation, 3 with a test split.
        where: The data set, for messages.
        class_names: Names of the classes, for messages.
        held_out: Fraction of each class for each held-out part.

    Raises:
        UserError: If a class has fewer images than there are parts.
    """
    labels = split.labels.numpy()
    counts = np.bincount(labels, minlength=len(class_names))
    if (scarce := np.flatnonzero((counts < parts) & (counts > 0))).size:
        first = scarce[0]
        raise UserError(
            f"class {class_names[first]!r} of {where} has {_images(int(counts[first]))}, too few to split in {parts} "
            "parts: add images, or make the splits yourself"
        )
    order = np.lexsort((_hashes(split), labels))
    rank_in_class = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    most = np.maximum(1, (counts - 1) // (parts - 1))  # so that training has an image of each class
    part_size = np.clip(np.round(held_out * counts).astype(int), 1, most)[labels[order]]
    part = rank_in_class // part_size + 1
    part[part >= parts] = 0
    train, *others = (split.take(np.sort(order[part == number])) for number in range(parts))
    return [train, *(replace(each, held_out=True) for each in others)]


def _hashes(split: Split) -> UInt64[np.ndarray, " images"]:
    """Hash of the name of each image."""
    pictures = split.to_read()
    digests = (hashlib.sha256(pictures.key(i).encode("utf-8", "surrogateescape")).digest() for i in range(len(split)))
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
