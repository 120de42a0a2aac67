"""Check that the sub-folders of a folder are classes, and not splits or data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.listing import Folder
from vit_attn.data.datasets.files.names import is_container, split_of, splits_in, without_split
from vit_attn.errors import UserError, some_of


def check_classes(here: Folder) -> list[str]:
    """Check the sub-folders, and return remarks on those that are treated as classes despite their names.

    Raises:
        UserError: If they cannot be classes, or may be something else.
    """
    if not here.folders:
        refuse_unclassed(here.path)
    _refuse_nested_splits(here)
    _refuse_twins(here)
    refuse_siblings(here)
    for each in here.filled:
        if len(each.filled) == 1 and is_training(each.filled[0]):
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
        refuse_unclassed(next((each for each in here.filled if named[each.name] == "train"), here.filled[0]).path)
    _refuse_split_names(here)
    for name in named:
        if is_container(name):
            raise UserError(
                f"{here.path / name} is called as a split is, but holds pictures without classes, next to class "
                "folders: move it elsewhere, or call it otherwise if it is a class"
            )
    return [f"{name} is treated as a class, since pictures are directly in it" for name in named]


def _refuse_nested_splits(here: Folder) -> None:
    """Refuse a folder whose classes each hold splits, or that holds data sets."""
    for each in here.filled:
        inner = {split: below for below in each.filled if (split := split_of(below.name))}
        if len(inner) < 2 or "train" not in inner:
            continue
        if any(below.filled for below in inner.values()):
            _refuse_data_set(here, each)
        if len(here.filled) == 1:
            refuse_unclassed(inner["train"].path)
        train = inner["train"].name
        raise UserError(
            f"{here.path} has splits in each class, such as {each.name}/{train}: make it {train}/{each.name}, or list "
            "path, label and split in a CSV file (--data.dataset=csv)"
        )


def _refuse_data_set(here: Folder, one: Folder) -> NoReturn:
    """Refuse a folder with several data sets, or with one data set and other folders."""
    several = [other.name for other in here.filled if any(map(is_training, other.filled))]
    others = [other.name for other in here.filled if other is not one]
    what, it = f"a data set with splits, {one.name}, and {some_of(others, 4)}", "it"
    if len(several) > 1:
        what, it = f"several data sets, {some_of(several, 4)}", "one"
    raise UserError(f"{here.path} holds {what}: name {it} with --data.root={one.path}")


def _refuse_twins(here: Folder) -> None:
    """Refuse sub-folders that hold the same sub-folders: those are the classes, and these are splits."""
    seen: dict[str, dict[frozenset[str], Folder]] = {}
    for one in here.filled:
        for names in _levels(one):
            for others, other in [pair for name in names for pair in seen.get(name, {}).items()]:
                if other is not one and _are_alike(names, others):
                    raise UserError(
                        f"{here.path}: {other.name} and {one.name} hold the same folders, "
                        f"{some_of(sorted(names & others), 3)}: if they are splits, rename them to train, val and "
                        "test; if classes, put their pictures right into them"
                    )
            for name in names:
                seen.setdefault(name, {}).setdefault(names, one)


def _are_alike(names: frozenset[str], others: frozenset[str]) -> bool:
    """Tell if two folders with these sub-folders can hardly be classes; both may hold one ``images``."""
    shared = len(names & others)
    return shared > 1 or (shared == 1 and (names < others or others < names))


def refuse_siblings(here: Folder) -> None:
    """Refuse a sub-folder that holds folders with the names of its siblings: it is another split of them."""
    siblings = _folded(here)
    for each in here.filled:
        for names in _levels(each):
            if shared := sorted((names & siblings) - {class_name(each.name).casefold()}):
                raise UserError(
                    f"{here.path}: {each.name} holds folders with the names of its siblings, "
                    f"{some_of(shared, 3)}: if it is a split, move the others into train; if not, move it elsewhere"
                )


def _levels(folder: Folder) -> Iterator[frozenset[str]]:
    """Case-folded names of the sub-folders, level by level as long as there is only one."""
    while folder.filled:
        yield _folded(folder)
        if len(folder.filled) > 1:
            return
        folder = folder.filled[0]


def _folded(folder: Folder) -> frozenset[str]:
    return frozenset(name.casefold() for name in class_names(folder))


def _refuse_split_names(here: Folder) -> None:
    """Refuse sub-folders named by class and split, such as ``cat_train`` and ``cat_test``."""
    named = [(each.name, found, without_split(each.name)) for each in here.filled if (found := splits_in(each.name))]
    for number, (one, split, bare) in enumerate(named):
        for other, another, rest in named[:number]:
            if split != another and (len(named) == len(here.filled) or bare == rest != ""):
                raise UserError(
                    f"{here.path}: {other} and {one} are called as splits of classes are: make them "
                    f"{another[0]}/{rest or 'CLASS'} and {split[0]}/{bare or 'CLASS'}, or list path, label and split "
                    "in a CSV file (--data.dataset=csv)"
                )


def is_training(folder: Folder) -> bool:
    """Tell if a folder has the name of the training split, and class folders."""
    return split_of(folder.name) == "train" and bool(folder.filled)


def class_names(folder: Folder) -> set[str]:
    """Class names of the sub-folders with pictures."""
    return {class_name(each.name) for each in folder.filled}


def refuse_unclassed(folder: Path) -> NoReturn:
    """Refuse a folder whose pictures are in no class folder."""
    raise UserError(f"no classes in {folder}: put the images of each class into a sub-folder of its name")
