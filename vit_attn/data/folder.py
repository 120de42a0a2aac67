"""``folder``: pictures of one's own, those of each class in a sub-folder."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.data.augment import OFF, Augment
from vit_attn.data.held_out import share_out
from vit_attn.data.splits import FilePictures, Source, Split
from vit_attn.errors import UserError, did_you_mean

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the folder of a split may be called."""
SPLIT_NAMES = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What systems leave in folders; names that begin with a dot are passed over as well."""
PHOTOS = Augment(random_resized_crop=0.35, flip=0.5).over(OFF)
"""What photographs of unlike sizes stand without losing their class."""


def folder_source(root: Path) -> Source:
    """The data set in a folder.

    It holds ``CLASS/…``, or ``train/CLASS/…``, ``val/CLASS/…`` and, if there is a test split, ``test/CLASS/…``. Only
    names are read here. What is not split is shared out 80 : 10 : 10 for every class, always in the same way.

    Raises:
        UserError: If there are no classes, if a class is empty, or if the splits have other classes or are not whole.
    """
    places = _split_folders(root)
    classes = {split: class_folders(place) for split, place in places.items()}
    first, *others = classes
    for other in others:
        if missing := set(classes[first]) ^ set(classes[other]):
            names = ", ".join(map(repr, sorted(missing)[:5]))
            raise UserError(f"the classes of {places[first]} and {places[other]} differ: {names} only in one of them")
    names = tuple(classes[first])
    if len(names) == 1:
        raise UserError(
            f"{places[first]} has one class only, {names[0]!r}: a classifier needs at least two sub-folders"
        )
    return Source(names, None, None, None, partial(_load, root, places, names), PHOTOS)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits; or the root as ``all``, where its sub-folders are classes: one may be called ``test``.

    Raises:
        UserError: If some folder is a split's, by its name and its sub-folders, and there is none to train on.
    """
    folders = _sub_folders(root)
    named = {split: [path for path in folders if path.name.lower() in names] for split, names in SPLIT_FOLDERS.items()}
    found = {split: paths[0] for split, paths in named.items() if paths}
    others = [path.name for path in folders if path.name.lower() not in SPLIT_NAMES]
    divided = next((path for path in found.values() if _sub_folders(path)), None)
    if not found or (others and divided is None):
        return {"all": root}
    if "train" not in found:
        hint = did_you_mean("train", others)
        raise UserError(f"{root} has {(divided or folders[0]).name}, the folder of a split, but no train{hint}")
    return found


def _sub_folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def class_folders(place: Path) -> list[str]:
    """Names of the sub-folders, in order.

    Raises:
        UserError: If there are none, or if the folder cannot be read.
    """
    names = [path.name for path in _sub_folders(place)]
    if not names:
        raise UserError(f"no classes in {place}: put the images of each class into a sub-folder of its name")
    return names


def entries(folder: Path) -> list[Path]:
    """What a folder holds, in order, without what systems leave there."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read: {error.strerror or error}") from error
    return [folder / name for name in names if not name.startswith(".") and name.lower() not in LITTER]


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """All files of a folder and of its sub-folders, in order; through links, but not in circles.

    Args:
        folder: Where to look.
        above: The folders, without links, through which it was reached; none of them is entered again.
    """
    above |= {folder.resolve()}
    found: list[Path] = []
    for path in entries(folder):
        if not path.is_dir():
            found.append(path)
        elif not any(each.is_relative_to(path.resolve()) for each in above):
            found += files_below(path, above)
    return found


def _load(
    root: Path, places: Mapping[str, Path], class_names: Sequence[str], _root: Path, _download: bool
) -> dict[str, Split]:
    others = [path.name for path in _sub_folders(root) if path not in places.values()]
    if others and "all" not in places:
        rank_zero_info(f"folder: left out of {root}, where the splits are {', '.join(places)}: {', '.join(others)}")
    splits = {name: _split(place, class_names, root) for name, place in places.items()}
    return complete(splits, str(root), class_names)


def _split(place: Path, class_names: Sequence[str], root: Path) -> Split:
    paths, labels = [], []
    for label, name in enumerate(class_names):
        files = files_below(place / name)
        if not files:
            raise UserError(f"class folder {place / name} is empty: put images there, or remove it")
        paths += files
        labels += [label] * len(files)
    return Split(None, torch.tensor(labels), pictures=FilePictures(paths, root))


def complete(splits: Mapping[str, Split], where: str, class_names: Sequence[str]) -> dict[str, Split]:
    """All three splits, where one of all images, of training, or of training and validation is there.

    The test split is left out where the validation split is given and the test split is not.
    """
    if "all" in splits:
        return dict(zip(("train", "val", "test"), share_out(splits["all"], 3, where, class_names), strict=True))
    if "val" in splits:
        return dict(splits)
    parts = ("train", "val") if "test" in splits else ("train", "val", "test")
    return {**splits, **dict(zip(parts, share_out(splits["train"], len(parts), where, class_names), strict=True))}
