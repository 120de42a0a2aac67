"""Where a folder of pictures has its splits and classes, by the names and the structure of its sub-folders."""

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
from vit_attn.data.datasets.files.listing import Folder, what_is_left_out
from vit_attn.data.datasets.files.names import SPLIT_WORDS, is_split_name, split_of
from vit_attn.errors import UserError, did_you_mean, some_of


@dataclass
class Layout:
    """What was found in a folder.

    Args:
        places: The folder of each split; or, as ``all``, that of the classes.
        unlabelled: Folders of splits whose pictures are in no class folder.
        remarks: What the user must know of how the folder was understood, a phrase each.
    """

    places: dict[str, Folder]
    unlabelled: dict[str, Folder] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def find_layout(root: Folder) -> Layout:
    """The splits in a folder, or the folder of its classes; both may be some folders deeper.

    A sub-folder is a split by its name if pictures are in sub-folders of it, and a class if they are right in it.

    Raises:
        UserError: If there are none, or if it cannot be known which of both a folder is.
    """
    here, remarks = root, []
    while not (divided := _divided(here)) and _is_wrapper(here):
        remarks += describe_loose(here)
        here = here.filled[0]
    remarks += [] if here is root else [f"taken from {here.path}"]
    if divided:
        layout = _splits(here, divided)
        return Layout(layout.places, layout.unlabelled, remarks + layout.remarks)
    return Layout({"all": here}, remarks=remarks + check_classes(here))


def _divided(folder: Folder) -> list[Folder]:
    """Sub-folders that are splits by their names and by the class folders in them."""
    if len(folder.filled) == 1 and folder.filled[0].folders and any(map(is_training, folder.filled[0].folders)):
        return []  # a wrapper that is called like a split, such as test_data/train/…
    named = [each for each in folder.filled if split_of(each.name)]
    if len(named) == 1 < len(folder.filled) and named[0].pictures:
        return []  # a class with pictures right in it, besides those in sub-folders
    return [each for each in named if each.filled]


def _is_wrapper(folder: Folder) -> bool:
    """Whether all that is in a folder is in another: the only one, or one that leads to splits."""
    inner = folder.filled
    nested = len(inner) == 1 and not inner[0].pictures and bool(inner[0].filled)
    return nested and (len(folder.folders) == 1 or _leads_to_splits(inner[0]))


def _leads_to_splits(folder: Folder) -> bool:
    return bool(_divided(folder)) or (len(folder.filled) == 1 and _leads_to_splits(folder.filled[0]))


def _splits(here: Folder, divided: Sequence[Folder]) -> Layout:
    """The splits, where some sub-folders are divided into classes and called as splits are."""
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
    places = {"train": _inner(found["train"])}
    refuse_siblings(places["train"])
    places |= {
        split: _inner(folder, class_names(places["train"])) for split, folder in found.items() if split != "train"
    }
    ways = {split: place.path.relative_to(here.path).as_posix() for split, place in places.items()}
    remarks = [f"{split} is {way}" for split, way in ways.items() if way != split]
    remarks += [f"{each.name} holds no picture" for each in here.folders if split_of(each.name) and not each.count]
    remarks += describe_loose(here)
    if others:
        remarks.append(f"left out beside the splits: {', '.join(f'{each.name} ({each.count})' for each in others)}")
    return Layout(places, {each.name: each for each in flat}, remarks)


def _inner(split: Folder, classes: Collection[str] = ()) -> Folder:
    """The folder of a split's classes, which may be in a folder of its own, as in ``seg_train/seg_train``."""
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
        hint = f": call the folder of the training images train; beside it there are {some_of(names, 3)}"
    one = next(found[split] for split in SPLIT_WORDS if split in found)
    raise UserError(f"{here.path} has {one.name}, the folder of a split, but no train{hint}")


def describe_loose(place: Folder) -> list[str]:
    """Remarks on pictures beside the class folders."""
    count = len(place.pictures)
    return [f"left out {count} picture{'s' * (count > 1)} in {place.path}, in no class folder"] if count else []


def left_out_of(folder: Folder) -> list[str]:
    """A remark on what is no picture, if there is any."""
    return [line] if (line := what_is_left_out(folder.all_left_out())) else []
