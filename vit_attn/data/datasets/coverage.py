"""Checks that every split has images of the same classes."""

from collections.abc import Mapping, Sequence

from vit_attn.data.datasets.remarks import Doubt
from vit_attn.data.datasets.splits import Split
from vit_attn.errors import UserError, some_of

SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
"""Adjective of each split in messages."""
MAX_NAMED = 5
"""Most classes that a message names."""


def check_classes(splits: Mapping[str, Split], class_names: Sequence[str]) -> list[str]:
    """Remarks on classes that a split has no images of; streams with unknown labels are skipped.

    Args:
        splits: The splits.
        class_names: Names of the classes, for splits that do not have them.

    Raises:
        UserError: If validation or test has images of a class that training has none of: no network could predict it.
    """
    trained = _counts(splits["train"], class_names)
    if trained is None:
        return []
    remarks: list[str] = []
    for split, each in splits.items():
        counts, names = _counts(each, class_names), each.class_names or class_names
        if counts is None:
            continue
        if unknown := [name for name, own, there in zip(names, counts, trained, strict=True) if own and not there]:
            raise UserError(
                f"the {SPLIT_TITLES[split]} images have classes that training has none of, "
                f"{some_of(unknown, MAX_NAMED)}: the network cannot predict them; add them to the training images, or "
                "remove them there"
            )
        expected = trained if split != "train" else [1] * len(trained)
        if absent := [name for name, own, there in zip(names, counts, expected, strict=True) if there and not own]:
            remarks.append(Doubt(f"{SPLIT_TITLES[split]} has no {some_of(absent, MAX_NAMED)}"))
    return remarks


def _counts(split: Split, class_names: Sequence[str]) -> list[int] | None:
    """Number of images of each class, if the labels are known."""
    names = split.class_names or class_names
    return split.labels.bincount(minlength=len(names)).tolist() if len(split.labels) else None
