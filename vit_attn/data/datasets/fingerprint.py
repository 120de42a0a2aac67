"""Which images a run trains on: those of a batch by name, and all of them by a short hash."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from vit_attn.data.datasets.splits import ImageFileList, Split
from vit_attn.data.loading.device import ShuffledBatches


def names_of_batch(split: Split, dataset: str, batches: ShuffledBatches, address: tuple[int, int]) -> list[str]:
    """The images of a training batch on this rank: their files, else their numbers, from 1.

    Args:
        split: The training images.
        dataset: Their data set.
        batches: How they are shuffled and dealt.
        address: The epoch and the batch in it, both from 0.

    Raises:
        IndexError: If the epoch has no such batch.
    """
    epoch, number = address
    indices = (batches.addresses(epoch)[number] % len(split)).tolist()
    if isinstance(split.pictures, ImageFileList):
        return [split.pictures.name(index) for index in indices]
    return [f"training image {index + 1} of {dataset}" for index in indices]


def fingerprint_of(splits: Mapping[str, Split], dataset: str, class_names: Iterable[str]) -> dict[str, Any]:
    """What tells these images from others without reading one, in values that JSON has.

    Args:
        splits: As they were found, before anything was left out.
        dataset: The name of the data set.
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
    """Images that are measured are other ones if a file of the same name has another size."""
    if not isinstance(split.pictures, ImageFileList):
        return _names(split)
    pairs = zip(split.pictures.keys(), split.pictures.paths.tolist(), strict=True)
    return (f"{key} {_size(path)}" for key, path in pairs)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # told by whoever reads it
        return -1


def _digest(names: Iterable[str]) -> str | None:
    digest, found = hashlib.sha256(), False
    for each in names:
        digest.update(each.encode("utf-8", "surrogateescape") + b"\0")
        found = True
    return digest.hexdigest()[:16] if found else None
