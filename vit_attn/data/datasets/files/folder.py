"""``folder``: the user's own pictures, with those of each class in a sub-folder."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from vit_attn.checkpoints.class_names import class_name
from vit_attn.data.datasets.files.folder_layout import Layout, describe_loose, find_layout, left_out_remarks
from vit_attn.data.datasets.files.listing import Folder, describe_left_out, describe_linked_twice, scan
from vit_attn.data.datasets.files.names import describe_look_alikes, in_natural_order
from vit_attn.data.datasets.files.roots import refuse_file
from vit_attn.data.datasets.held_out import HELD_OUT, partition
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.errors import UserError, did_you_mean, some_of

PHOTOS = Augment(random_resized_crop=0.35, flip=0.5).over(OFF)
"""Augmentation that leaves the class of photographs of different sizes as it is."""


def folder_source(root: Path) -> DatasetInfo:
    """Data set in a folder.

    It holds ``CLASS/…``, or ``train/CLASS/…``, ``val/CLASS/…`` and, if there is a test split, ``test/CLASS/…``; the
    splits may have other names, such as ``training_set``, and may be some folders deeper. Only names are read here.
    Images without a split are partitioned 80 : 10 : 10 in every class, always in the same way.

    Raises:
        UserError: If there are no classes, if a class is empty, if a split has a class that training has not, or if
            the sub-folders are ambiguous.
    """
    refuse_file(root)
    found = scan(root)
    layout = find_layout(found)
    first = next(iter(layout.split_folders.values()))
    remarks = [*layout.remarks, *left_out_remarks(found)]
    pictures = {
        "train" if first is folder else split: _classes(folder, remarks)
        for split, folder in layout.split_folders.items()
    }
    _refuse_empty(first)
    names = tuple(in_natural_order(pictures["train"]))
    if len(names) == 1:
        raise UserError(f"{first.path} has one class only, {names[0]!r}: a classifier needs at least two sub-folders")
    for split, folder in list(layout.split_folders.items())[1:]:
        if _is_unlabelled(pictures[split], names):
            layout.unlabelled[folder.name] = layout.split_folders.pop(split)
            continue
        refuse_unknown_classes(pictures[split], names, str(folder.path))
    remarks += [*unlabelled_remarks(layout), *describe_look_alikes(names)]
    remarks += describe_linked_twice(
        found, (path for classes in pictures.values() for files in classes.values() for path in files)
    )
    lists = {split: pictures["train" if folder is first else split] for split, folder in layout.split_folders.items()}
    folders = {split: folder.path for split, folder in layout.split_folders.items()}
    load = partial(_load, root, folders, lists, names)
    return DatasetInfo(names, None, None, None, load, PHOTOS, remarks=remarks, holds_out="val" not in lists)


def _classes(folder: Folder, remarks: list[str]) -> dict[str, list[str]]:
    """Pictures by class; folders whose names differ only in their Unicode form are one class, with a remark."""
    found: dict[str, list[str]] = {}
    for each in folder.filled:
        if (name := class_name(each.name)) in found:
            remarks.append(f"two folders of {folder.path} are the class {name!r}, spelt alike")
        found.setdefault(name, []).extend(each.all_pictures())
    remarks += describe_loose(folder)
    return found


def _refuse_empty(folder: Folder) -> None:
    if not folder.folders:
        raise UserError(f"no classes in {folder.path}: put the images of each class into a sub-folder of its name")
    for each in folder.folders:
        if not each.count:
            holds = describe_left_out(each.all_left_out())
            what = f"holds no picture ({holds})" if holds else "is empty"
            raise UserError(f"class folder {each.path} {what}: put images there, or remove it")


def _is_unlabelled(classes: Collection[str], known: Sequence[str]) -> bool:
    """Tell if a split's only folder holds all its pictures and is no class, such as ``test/images``."""
    return len(classes) == 1 and not {name.casefold() for name in classes} & {name.casefold() for name in known}


def refuse_unknown_classes(found: Collection[str], known: Sequence[str], where: str) -> None:
    """Refuse classes that training lacks: a network cannot predict them, so they would count as mistakes or not at all.

    Args:
        found: Classes of another split.
        known: Classes of training.
        where: Name of the split for the message.

    Raises:
        UserError: If there are any.
    """
    if unknown := [name for name in found if name not in set(known)]:
        several, it = ("classes", "them") if len(unknown) > 1 else ("class", "it")
        named = some_of([repr(name) for name in unknown], 5)
        raise UserError(
            f"{where} has the {several} {named}, which training has not, so the network cannot name {it}"
            f"{did_you_mean(unknown[0], known)}: add {it} to the training images, or take {it} out of there"
        )


def unlabelled_remarks(layout: Layout) -> list[str]:
    """Remarks on splits without classes."""
    return [
        f"{name} has no classes and is left out ({each.count} pictures); `vit-attn predict {each.path}` names them"
        for name, each in layout.unlabelled.items()
    ]


def _load(
    root: Path,
    folders: Mapping[str, Path],
    classes: Mapping[str, Mapping[str, Sequence[str]]],
    class_names: Sequence[str],
    _root: Path,
    _download: bool,
    held_out: float = HELD_OUT,
) -> dict[str, Split]:
    splits = {split: _split(pictures, class_names, folders[split]) for split, pictures in classes.items()}
    return complete(splits, str(root), class_names, held_out)


def _split(classes: Mapping[str, Sequence[str]], class_names: Sequence[str], folder: Path) -> Split:
    """Split of the pictures, whose names are relative to the folder of its classes, so that it may be moved."""
    paths, labels = [], []
    for label, name in enumerate(class_names):
        files = classes.get(name, ())
        paths += files
        labels += [label] * len(files)
    return Split(None, torch.tensor(labels), pictures=ImageFileList(paths, folder))


def complete(
    splits: Mapping[str, Split], where: str, class_names: Sequence[str], held_out: float = HELD_OUT
) -> dict[str, Split]:
    """Hold out the splits that are missing of training, validation and test, each a fraction of every class.

    There is no test split if the validation split is given and the test split is not.
    """
    if "all" in splits:
        parts = partition(splits["all"], 3, where, class_names, held_out)
        return dict(zip(("train", "val", "test"), parts, strict=True))
    if "val" in splits:
        return dict(splits)
    names = ("train", "val") if "test" in splits else ("train", "val", "test")
    parts = partition(splits["train"], len(names), where, class_names, held_out)
    return {**splits, **dict(zip(names, parts, strict=True))}
