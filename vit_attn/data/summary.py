"""Summary that a command logs of its data before it begins: the splits, and what a stage leaves out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from vit_attn.data.datasets.coverage import SPLIT_TITLES
from vit_attn.data.datasets.remarks import Doubt
from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.cache import SplitCache
from vit_attn.data.loading.limits import Limit
from vit_attn.errors import printable, shortened

MAX_NAME = 40
"""Most characters of a class name in the summary."""


@runtime_checkable
class LimitedData(Protocol):
    """A data module whose stages may be limited."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The splits by name."""
        ...

    @property
    def cache(self) -> SplitCache:
        """Cache of the splits, which knows whether they are decoded into memory."""
        ...

    def limit(self, stage: str) -> Limit | None:
        """Limit of ``val``, ``test`` or ``predict``."""
        ...


def log_splits(name: str, class_names: Sequence[str], splits: Mapping[str, Split], remarks: Iterable[str] = ()) -> None:
    """Log a line for a data set, and one for each remark on it, a warning if it is a doubt.

    Args:
        name: The data set, with its root if that is the user's own.
        class_names: Names of the classes.
        splits: The splits before anything is left out.
        remarks: Remarks on how the files were understood.
    """
    rank_zero_info(printable(describe_splits(name, class_names, splits)))
    for remark in dict.fromkeys(remarks):
        (rank_zero_warn if isinstance(remark, Doubt) else rank_zero_info)(printable(remark))


def describe_splits(name: str, class_names: Sequence[str], splits: Mapping[str, Split]) -> str:
    """Describe a data set by its classes and the number of images of each split.

    >>> import torch
    >>> split = Split(None, torch.zeros(30, dtype=torch.long))
    >>> describe_splits("csv birds.csv", ["crow", "owl"], {"train": split, "val": split})
    'csv birds.csv: 2 classes (crow, owl), 30 training, 30 validation, no test images'
    """
    images = [
        f"{len(splits[split]):,} {title}{_origin(splits[split])}"
        for split, title in SPLIT_TITLES.items()
        if split in splits
    ]
    missing = "" if "test" in splits else ", no test"
    return f"{name}: {describe_classes(class_names)}, {', '.join(images)}{missing} images"


def describe_classes(names: Sequence[str]) -> str:
    """Number of classes, with the first and the last name.

    >>> describe_classes(["cat", "dog", "owl"])
    '3 classes (cat … owl)'
    """
    ends = [shortened(name, MAX_NAME) for name in (names[0], names[-1])] if names else []
    between = ", " if len(names) < 3 else " … "
    return f"{len(names):,} classes ({between.join(ends)})"


def _origin(split: Split) -> str:
    return " (held out from training)" if split.held_out else ""


def log_limit(data: LimitedData, stage: str) -> None:
    """Log that a stage uses only some images of its split, and that those of a stream are no random sample.

    Args:
        data: The data module.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    split, title = {"test": ("test", "test"), "predict": ("predict", "prediction")}.get(stage, ("val", "validation"))
    if (limit := data.limit(split)) is None:
        return
    message = f"{title} is limited to {limit.images:,} of {limit.of:,} images by {limit.setting}"
    message += "; best is chosen by these" if stage == "fit" and "fast_dev_run" not in limit.setting else ""
    images = data.splits["val" if split == "val" else "test"]
    if images.stream is not None and not data.cache.in_memory:
        seen, labels = images.labels[: limit.images].unique(), images.labels.unique()
        known = f", of {len(seen)} of {len(labels)} classes," if len(labels) else ""
        message += f"; they are the first of the stream{known} and no random sample"
    rank_zero_info(message)
