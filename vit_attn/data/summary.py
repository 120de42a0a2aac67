"""What a command says of its data before it begins: what was found, and what of it is left out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.data.datasets.splits import Split
from vit_attn.errors import printable, shortened

MOST_NAME = 40
"""Characters of a class's name in the summary."""
TITLES = {"train": "training", "val": "validation", "test": "test"}


def say_what_was_found(
    name: str, class_names: Sequence[str], splits: Mapping[str, Split], remarks: Iterable[str] = ()
) -> None:
    """Log one line for a data set, and one for each remark on what was left out or is missing.

    Args:
        name: The data set, and where it lies if the user said so.
        class_names: Names of the classes.
        splits: As they were found.
        remarks: On the data set.
    """
    rank_zero_info(printable(summary(name, class_names, splits)))
    for remark in dict.fromkeys(remarks):
        rank_zero_info(printable(remark))


def summary(name: str, class_names: Sequence[str], splits: Mapping[str, Split]) -> str:
    """The data set, its classes, and the images of each split with where they were held out from.

    >>> import torch
    >>> split = Split(None, torch.zeros(30, dtype=torch.long))
    >>> summary("csv birds.csv", ["crow", "owl"], {"train": split, "val": split})
    'csv birds.csv: 2 classes (crow, owl), 30 training, 30 validation, no test images'
    """
    images = [
        f"{len(splits[split]):,} {title}{_origin(splits[split])}" for split, title in TITLES.items() if split in splits
    ]
    return f"{name}: {classes(class_names)}, {', '.join(images)}{'' if 'test' in splits else ', no test'} images"


def classes(names: Sequence[str]) -> str:
    """Number of classes, with the first and the last.

    >>> classes(["cat", "dog", "owl"])
    '3 classes (cat … owl)'
    """
    ends = [shortened(name, MOST_NAME) for name in (names[0], names[-1])] if names else []
    between = ", " if len(names) < 3 else " … "
    return f"{len(names):,} classes ({between.join(ends)})"


def _origin(split: Split) -> str:
    return " (held out from training)" if split.held_out else ""


def say_limit(data: Any, stage: str) -> None:
    """Log that a command takes a part of a split only, if it does; of a stream, that this is no random part.

    Args:
        data: A data module with ``limit(stage)`` and ``splits``.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    split, title = {"test": ("test", "test"), "predict": ("predict", "prediction")}.get(stage, ("val", "validation"))
    if (limit := data.limit(split)) is None:
        return
    part = f"{title} is limited to {limit.images:,} of {limit.of:,} images by {limit.setting}"
    part += "; best is chosen by these" if stage == "fit" and "fast_dev_run" not in limit.setting else ""
    images = data.splits["val" if split == "val" else "test"]
    if images.stream is not None and not data.store.in_memory:
        seen, labels = images.labels[: limit.images].unique(), images.labels.unique()
        known = f", of {len(seen)} of {len(labels)} classes," if len(labels) else ""
        part += f"; they are the first of the stream{known} and no random part"
    rank_zero_info(part)
