"""Identification of the images of a run: names of those in a batch, and a fingerprint of all."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.sampler import ShuffledBatches


def batch_names(split: Split, dataset: str, sampler: ShuffledBatches, epoch: int, batch: int) -> list[str]:
    """Names of the images in a training batch of this rank: their files, else their numbers, from 1.

    Args:
        split: The training images.
        dataset: Name of the data set.
        sampler: Order of the training images.
        epoch: The epoch, from 0.
        batch: The batch in the epoch, from 0.

    Raises:
        IndexError: If the epoch has no such batch.
    """
    indices = (sampler.addresses(epoch)[batch] % len(split)).tolist()
    if isinstance(split.pictures, ImageFileList):
        return [split.pictures.name(index) for index in indices]
    return [f"training image {index + 1} of {dataset}" for index in indices]


def fingerprint_of(splits: Mapping[str, Split], dataset: str, class_names: Iterable[str]) -> dict[str, Any]:
    """Fingerprint of a data set without reading an image: plain values for JSON.

    Args:
        splits: The splits before corrupt files are left out.
        dataset: Name of the data set.
        class_names: Names of the classes.
    """
    measured = {name: split for name, split in splits.items() if name != "train"}
    return {
        "dataset": dataset,
        "images": {name: len(split) for name, split in splits.items()},
        "class_names": list(class_names),
        "files": _digest(_names(splits["train"])),
        **{f"{name} files": _digest(_names_and_sizes(split)) for name, split in measured.items()},
    }


def _names(split: Split) -> Iterable[str]:
    if split.stream is not None:
        return split.stream.split.split("::")
    return split.pictures.keys() if isinstance(split.pictures, ImageFileList) else ()


def _names_and_sizes(split: Split) -> Iterable[str]:
    """Names of files with their sizes, since evaluation images of another size are other images."""
    if not isinstance(split.pictures, ImageFileList):
        return _names(split)
    pairs = zip(split.pictures.keys(), split.pictures.paths.tolist(), strict=True)
    return (f"{key} {_size(path)}" for key, path in pairs)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # reading it reports the error
        return -1


def _digest(names: Iterable[str]) -> str | None:
    digest, found = hashlib.sha256(), False
    for each in names:
        digest.update(each.encode("utf-8", "surrogateescape") + b"\0")
        found = True
    return digest.hexdigest()[:16] if found else None
