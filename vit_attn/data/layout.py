"""Where a folder of pictures has its splits and classes, by the names and the structure of its sub-folders."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from vit_attn.data.listing import Folder, what_is_left_out
from vit_attn.data.names import SPLIT_WORDS, class_name, is_container, is_split_name, split_of, splits_in, without_split
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
    return Layout({"all": here}, remarks=remarks + _check_classes(here))


def _divided(folder: Folder) -> list[Folder]:
    """Sub-folders that are splits by their names and by the class folders in them."""
    if len(folder.filled) == 1 and folder.filled[0].folders and any(map(_is_training, folder.filled[0].folders)):
        return []  # a wrapper that is called like a split, such as test_data/train/…
    named = [each for each in folder.filled if split_of(each.name)]
    if len(named) == 1 < len(folder.filled) and named[0].pictures:
        return []  # a class with pictures right in it, besides those in sub-folders
    return [each for each in named if each.filled]


def _is_training(folder: Folder) -> bool:
    return split_of(folder.name) == "train" and bool(folder.filled)


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
        names, classes = some_of([each.name for each in others], 3), _class_names(divided[0])
        alike = [each.name for each in others if _class_names(each) & classes]
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
    _refuse_siblings(places["train"])
    places |= {
        split: _inner(folder, _class_names(places["train"])) for split, folder in found.items() if split != "train"
    }
    ways = {split: place.path.relative_to(here.path).as_posix() for split, place in places.items()}
    remarks = [f"{split} is {way}" for split, way in ways.items() if way != split]
    remarks += [f"{each.name} holds no picture" for each in here.folders if split_of(each.name) and not each.count]
    remarks += describe_loose(here)
    if others:
        remarks.append(f"left out beside the splits: {', '.join(f'{each.name} ({each.count})' for each in others)}")
    return Layout(places, {each.name: each for each in flat}, remarks)


def _class_names(folder: Folder) -> set[str]:
    return {class_name(each.name) for each in folder.filled}


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
            _refuse_unclassed(each.path)
    names = [each.name for each in others]
    hint = did_you_mean("train", names)
    if names and not hint:
        hint = f": call the folder of the training images train; beside it there are {some_of(names, 3)}"
    one = next(found[split] for split in SPLIT_WORDS if split in found)
    raise UserError(f"{here.path} has {one.name}, the folder of a split, but no train{hint}")


def _refuse_unclassed(place: Path) -> NoReturn:
    raise UserError(f"no classes in {place}: put the images of each class into a sub-folder of its name")


def _check_classes(here: Folder) -> list[str]:
    """Remarks on sub-folders that are taken for classes.

    Raises:
        UserError: If they can be none, or may be something else.
    """
    if not here.folders:
        _refuse_unclassed(here.path)
    _refuse_nested_splits(here)
    _refuse_twins(here)
    _refuse_siblings(here)
    for each in here.filled:
        if len(each.filled) == 1 and _is_training(each.filled[0]):
            _refuse_data_set(here, each)
    if len(here.filled) == 1 < len(here.folders) and not here.filled[0].pictures:
        others = some_of([each.name for each in here.folders if not each.count], 3)
        only = here.filled[0]
        raise UserError(
            f"{here.path} has pictures in {only.name} only: name it with --data.root={only.path}, or put the images of "
            f"a class into {others}"
        )
    named = {each.name: split for each in here.filled if (split := split_of(each.name))}
    if len(named) == len(here.folders) == len(set(named.values())):
        _refuse_unclassed(next((each for each in here.filled if named[each.name] == "train"), here.filled[0]).path)
    _refuse_split_names(here)
    for name in named:
        if is_container(name):
            raise UserError(
                f"{here.path / name} is called as a split is, but holds pictures without classes, and is beside class "
                "folders: move it elsewhere, or call it otherwise if it is a class"
            )
    return [f"{name} is taken for a class, as its pictures are in no sub-folders" for name in named]


def _refuse_nested_splits(here: Folder) -> None:
    """Refuse splits in each class, and several data sets side by side."""
    for each in here.filled:
        inner = {split: below for below in each.filled if (split := split_of(below.name))}
        if len(inner) < 2 or "train" not in inner:
            continue
        if any(below.filled for below in inner.values()):
            _refuse_data_set(here, each)
        if len(here.filled) == 1:
            _refuse_unclassed(inner["train"].path)
        train = inner["train"].name
        raise UserError(
            f"{here.path} has splits in each class, such as {each.name}/{train}: make it {train}/{each.name}, or list "
            "path, label and split in a CSV file (--data.dataset=csv)"
        )


def _refuse_data_set(here: Folder, one: Folder) -> NoReturn:
    several = [other.name for other in here.filled if any(map(_is_training, other.filled))]
    beside = [other.name for other in here.filled if other is not one]
    what, it = f"a data set with splits, {one.name}, beside {some_of(beside, 4)}", "it"
    if len(several) > 1:
        what, it = f"several data sets, {some_of(several, 4)}", "one"
    raise UserError(f"{here.path} holds {what}: name {it} with --data.root={one.path}")


def _refuse_twins(here: Folder) -> None:
    """Refuse would-be classes that have the same sub-folders: those are the classes, and they are splits."""
    seen: dict[frozenset[str], Folder] = {}
    for one in here.filled:
        for names in _levels(one):
            for others, other in seen.items():
                if other is not one and _are_alike(names, others):
                    raise UserError(
                        f"{here.path}: {other.name} and {one.name} hold the same folders, "
                        f"{some_of(sorted(names & others), 3)}: if they are splits, rename them to train, val and "
                        "test; if classes, put their pictures right into them"
                    )
            seen.setdefault(names, one)


def _are_alike(names: frozenset[str], others: frozenset[str]) -> bool:
    """Whether two folders with these sub-folders can hardly be two classes; one common ``images`` may be in each."""
    shared = len(names & others)
    return shared > 1 or (shared == 1 and (names < others or others < names))


def _refuse_siblings(here: Folder) -> None:
    """Refuse a would-be class whose sub-folders are called as those beside it: it is another split of them."""
    beside = _folded(here)
    for each in here.filled:
        for names in _levels(each):
            if shared := sorted((names & beside) - {class_name(each.name).casefold()}):
                raise UserError(
                    f"{here.path}: {each.name} holds folders that are called as those beside it, "
                    f"{some_of(shared, 3)}: if it is a split, move the others into train; if not, move it elsewhere"
                )


def _levels(folder: Folder) -> Iterator[frozenset[str]]:
    """Names of the sub-folders, and of those below where there is one only, however they are cased."""
    while folder.filled:
        yield _folded(folder)
        if len(folder.filled) > 1:
            return
        folder = folder.filled[0]


def _folded(folder: Folder) -> frozenset[str]:
    return frozenset(name.casefold() for name in _class_names(folder))


def _refuse_split_names(here: Folder) -> None:
    """Refuse would-be classes that are called by split and class, such as ``cat_train`` beside ``cat_test``."""
    named = [(each.name, found, without_split(each.name)) for each in here.filled if (found := splits_in(each.name))]
    for number, (one, split, bare) in enumerate(named):
        for other, another, rest in named[:number]:
            if split != another and (len(named) == len(here.filled) or bare == rest != ""):
                raise UserError(
                    f"{here.path}: {other} and {one} are called as splits of classes are: make them "
                    f"{another[0]}/{rest or 'CLASS'} and {split[0]}/{bare or 'CLASS'}, or list path, label and split "
                    "in a CSV file (--data.dataset=csv)"
                )


def describe_loose(place: Folder) -> list[str]:
    """Remarks on pictures beside the class folders."""
    count = len(place.pictures)
    return [f"left out {count} picture{'s' * (count > 1)} in {place.path}, in no class folder"] if count else []


def left_out_of(folder: Folder) -> list[str]:
    """A remark on what is no picture, if there is any."""
    return [line] if (line := what_is_left_out(folder.all_left_out())) else []
