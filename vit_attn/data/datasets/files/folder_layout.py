"""Search for the splits and classes of a folder of pictures, by names and structure of its sub-folders."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.class_folders import (
    check_classes,
    class_names,
    is_training,
    refuse_siblings,
    refuse_unclassed,
)
from vit_attn.data.datasets.files.listing import Folder, describe_left_out, describe_unread_photos
from vit_attn.data.datasets.files.names import SPLIT_WORDS, is_split_name, split_of
from vit_attn.data.datasets.remarks import Doubt
from vit_attn.errors import UserError, did_you_mean, some_of


@dataclass
class Layout:
    """Splits and classes of a folder.

    Args:
        split_folders: Folder with the classes of each split; of the only one as ``all``.
        unlabelled: Folders of splits whose pictures are in no class folder.
        remarks: Remarks for the user on how the folder was understood, a phrase each.
    """

    split_folders: dict[str, Folder]
    unlabelled: dict[str, Folder] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def find_layout(root: Folder) -> Layout:
    """Find the splits of a folder, or the folder of its classes; both may be some folders deeper.

    A sub-folder with a split's name is that split if its sub-folders hold pictures, and a class if it directly does.

    Raises:
        UserError: If there are none, or if a folder may be a split or a class.
    """
    here, remarks = root, []
    while not (divided := _divided(here)) and _is_wrapper(here):
        remarks += describe_loose(here)
        here = here.filled[0]
    remarks += [] if here is root else [f"read from {here.path}"]
    if divided:
        layout = _splits(here, divided)
        return Layout(layout.split_folders, layout.unlabelled, remarks + layout.remarks)
    return Layout({"all": here}, remarks=remarks + check_classes(here))


def _divided(folder: Folder) -> list[Folder]:
    """Sub-folders with a split's name and class folders in them."""
    if len(folder.filled) == 1 and folder.filled[0].folders and any(map(is_training, folder.filled[0].folders)):
        return []  # a wrapper that is called like a split, such as test_data/train/…
    named = [each for each in folder.filled if split_of(each.name)]
    if len(named) == 1 < len(folder.filled) and named[0].pictures:
        return []  # a class with pictures right in it, besides those in sub-folders
    return [each for each in named if each.filled]


def _is_wrapper(folder: Folder) -> bool:
    """Tell if everything in a folder is in one sub-folder: the only one, or one that leads to splits."""
    inner = folder.filled
    nested = len(inner) == 1 and not inner[0].pictures and bool(inner[0].filled)
    return nested and (len(folder.folders) == 1 or _leads_to_splits(inner[0]))


def _leads_to_splits(folder: Folder) -> bool:
    return bool(_divided(folder)) or (len(folder.filled) == 1 and _leads_to_splits(folder.filled[0]))


def _splits(here: Folder, divided: Sequence[Folder]) -> Layout:
    """Layout of a folder with splits: sub-folders with a split's name and class folders in them."""
    flat = [each for each in here.filled if split_of(each.name) and not each.filled]
    others = [each for each in here.filled if split_of(each.name) is None]
    found: dict[str, Folder] = {}
    for each in divided:
        split = str(split_of(each.name))
        if split in found:
            raise UserError(
                f"{here.path} has two folders of the split {split}, {found[split].name} and {each.name}: rename or "
                "move one of them"
            )
        found[split] = each
    if "train" not in found:
        _refuse_without_training(here, found, flat, others)
    if others and len(found) + len(flat) == 1:
        names, classes = some_of([each.name for each in others], 3), class_names(divided[0])
        alike = [each.name for each in others if class_names(each) & classes]
        if alike and is_split_name(divided[0].name):
            raise UserError(
                f"{here.path}: {some_of(alike, 3)} holds the same folders as {divided[0].name}: call it val or test, "
                "or move it elsewhere"
            )
        raise UserError(
            f"{here.path}: is {divided[0].name} the training split, or a class like {names}? Name the folder of the "
            f"training images with --data.root={divided[0].path}, or call the class otherwise"
        )
    found = {split: found[split] for split in SPLIT_WORDS if split in found}
    split_folders = {"train": _inner(found["train"])}
    refuse_siblings(split_folders["train"])
    split_folders |= {
        split: _inner(folder, class_names(split_folders["train"]))
        for split, folder in found.items()
        if split != "train"
    }
    paths = {split: folder.path.relative_to(here.path).as_posix() for split, folder in split_folders.items()}
    remarks = [f"{split} is {path}" for split, path in paths.items() if path != split]
    remarks += [
        Doubt(f"{each.name} holds no picture") for each in here.folders if split_of(each.name) and not each.count
    ]
    remarks += describe_loose(here)
    if others:
        remarks.append(f"left out next to the splits: {', '.join(f'{each.name} ({each.count})' for each in others)}")
    return Layout(split_folders, {each.name: each for each in flat}, remarks)


def _inner(split: Folder, classes: Collection[str] = ()) -> Folder:
    """Folder of a split's classes, which may be deeper, as in ``seg_train/seg_train``."""
    while _is_wrapper(split) and class_name(split.filled[0].name) not in classes:
        split = split.filled[0]
    return split


def _refuse_without_training(
    here: Folder, found: Mapping[str, Folder], flat: Sequence[Folder], others: Sequence[Folder]
) -> NoReturn:
    for each in flat:
        if split_of(each.name) == "train":
            refuse_unclassed(each.path)
    names = [each.name for each in others]
    hint = did_you_mean("train", names)
    if names and not hint:
        hint = f": call the folder of the training images train; next to it are {some_of(names, 3)}"
    one = next(found[split] for split in SPLIT_WORDS if split in found)
    raise UserError(f"{here.path} has {one.name}, the folder of a split, but no train{hint}")


def describe_loose(folder: Folder) -> list[str]:
    """Remark on pictures outside the class folders."""
    count = len(folder.pictures)
    return [Doubt(f"left out {count} picture{'s' * (count > 1)} in {folder.path}, in no class folder")] if count else []


def left_out_remarks(folder: Folder) -> list[str]:
    """Remarks on files that are no pictures, if there are any, and on photographs among them."""
    counts = folder.all_left_out()
    return [*([line] if (line := describe_left_out(counts)) else []), *describe_unread_photos(counts)]
