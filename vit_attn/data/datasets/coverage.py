"""Which classes each split has images of."""

from collections.abc import Mapping, Sequence

from vit_attn.data.datasets.splits import Split
from vit_attn.errors import UserError, some_of

CALLED = {"train": "training", "val": "validation", "test": "test"}
SHOWN = 5
"""Classes that a line names."""


def check_classes(splits: Mapping[str, Split], class_names: Sequence[str]) -> list[str]:
    """Remarks on classes that a split has no images of; streams that do not tell their labels are passed over.

    Args:
        splits: As they were found.
        class_names: Names of the classes, of sets whose files do not tell them.

    Raises:
        UserError: If validation or test has images of a class that training has none of: no network could name it.
    """
    trained = _counts(splits["train"], class_names)
    if trained is None:
        return []
    remarks = []
    for split, each in splits.items():
        counts, names = _counts(each, class_names), each.class_names or class_names
        if counts is None:
            continue
        if unknown := [name for name, own, there in zip(names, counts, trained, strict=True) if own and not there]:
            raise UserError(
                f"the {CALLED[split]} images have classes that training has none of, {some_of(unknown, SHOWN)}: the "
                "network cannot name them; add them to the training images, or take them out of there"
            )
        expected = trained if split != "train" else [1] * len(trained)
        if absent := [name for name, own, there in zip(names, counts, expected, strict=True) if there and not own]:
            remarks.append(f"{CALLED[split]} has no {some_of(absent, SHOWN)}")
    return remarks


def _counts(split: Split, class_names: Sequence[str]) -> list[int] | None:
    """Images of each class, where they are known."""
    names = split.class_names or class_names
    return split.labels.bincount(minlength=len(names)).tolist() if len(split.labels) else None
