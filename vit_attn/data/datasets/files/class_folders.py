"""Whether the sub-folders of a folder are classes, or may be something else."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.listing import Folder
from vit_attn.data.datasets.files.names import is_container, split_of, splits_in, without_split
from vit_attn.errors import UserError, some_of


def check_classes(here: Folder) -> list[str]:
    """Remarks on sub-folders that are taken for classes.

    Raises:
        UserError: If they can be none, or may be something else.
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
                f"{here.path / name} is called as a split is, but holds pictures without classes, and is beside class "
                "folders: move it elsewhere, or call it otherwise if it is a class"
            )
    return [f"{name} is taken for a class, as pictures are right in it" for name in named]


def _refuse_nested_splits(here: Folder) -> None:
    """Refuse splits in each class, and several data sets side by side."""
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
    """Refuse a folder with one data set of several, or with one beside other folders."""
    several = [other.name for other in here.filled if any(map(is_training, other.filled))]
    beside = [other.name for other in here.filled if other is not one]
    what, it = f"a data set with splits, {one.name}, beside {some_of(beside, 4)}", "it"
    if len(several) > 1:
        what, it = f"several data sets, {some_of(several, 4)}", "one"
    raise UserError(f"{here.path} holds {what}: name {it} with --data.root={one.path}")


def _refuse_twins(here: Folder) -> None:
    """Refuse would-be classes that have the same sub-folders: those are the classes, and they are splits."""
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
    """Whether two folders with these sub-folders can hardly be two classes; one common ``images`` may be in each."""
    shared = len(names & others)
    return shared > 1 or (shared == 1 and (names < others or others < names))


def refuse_siblings(here: Folder) -> None:
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
    return frozenset(name.casefold() for name in class_names(folder))


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


def is_training(folder: Folder) -> bool:
    """Whether a folder is a training split by its name, and divided."""
    return split_of(folder.name) == "train" and bool(folder.filled)


def class_names(folder: Folder) -> set[str]:
    """Names of the sub-folders, if they are classes."""
    return {class_name(each.name) for each in folder.filled}


def refuse_unclassed(place: Path) -> NoReturn:
    """Refuse a folder in which pictures are in no class folder."""
    raise UserError(f"no classes in {place}: put the images of each class into a sub-folder of its name")
