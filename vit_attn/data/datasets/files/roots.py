"""Checks for a root that belongs to another data set than the one of that name."""

import os
from pathlib import Path

from vit_attn.data.datasets.files.listing import is_litter
from vit_attn.data.images.image_file import SUFFIXES
from vit_attn.errors import UserError, path_hint

TABLES = frozenset({".csv", ".tsv", ".tab", ".psv"})
OF_TORCHVISION = frozenset(
    (
        "mnist fashionmnist kmnist emnist qmnist usps svhn stl10_binary flowers-102 food-101 oxford-iiit-pet dtd "
        "eurosat gtsrb fgvc-aircraft-2013b stanford_cars country211 rendered-sst2 caltech101 caltech256 pcam sun397 "
        "imagenette2 imagenette2-320 imagenette2-160 data_256 val_256 data_large_standard 2021_train 2021_valid "
        "2021_train_mini cifar-10-batches-py cifar-100-python"
    ).split()
)
"""Folders that torchvision makes in a root; pictures in them are not the user's own."""
MAX_DEPTH = 4
MAX_ENTRIES = 20_000
"""Most entries of the root's folders among which a picture is searched."""


def refuse_file(root: Path) -> None:
    """Refuse a root that is not a folder, with a hint at what may be meant.

    Raises:
        UserError: If so.
    """
    if root.is_file():
        table = root.suffix.lower() in TABLES
        what = "a table is --data.dataset=csv" if table else "name a folder; an archive has to be unpacked"
        raise UserError(f"{root} is a file, not a folder: {what}")
    if not root.exists():
        raise UserError(f"folder {root} cannot be read: No such file or directory{path_hint(root)}")


def refuse_other_root(name: str, root: Path) -> None:
    """Refuse to download a data set into a root with the user's own pictures, or into a mistyped one.

    Args:
        name: The data set, which is not in the root.
        root: The folder of its files.

    Raises:
        UserError: If the root is a file, if it holds the user's own pictures, or if its parent does not exist.
    """
    if root.is_file():
        refuse_file(root)
    if (picture := own_picture(root)) is not None:
        raise UserError(
            f"{root} holds pictures, such as {picture.relative_to(root).as_posix()}, and not {name}: "
            "to train on them, add --data.dataset=folder"
        )
    if not root.exists() and not root.absolute().parent.exists():
        raise UserError(f"{name}: no folder {root}, and none {root.absolute().parent} to make it in: set --data.root")


def own_picture(root: Path) -> Path | None:
    """First picture in a folder or a few levels below it, outside of torchvision's folders."""
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop(0)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > MAX_ENTRIES:
                return None
            if entry.is_dir():
                known = is_litter(entry.name) or (depth == 0 and entry.name.lower() in OF_TORCHVISION)
                if not known and depth < MAX_DEPTH:
                    waiting.append((folder / entry.name, depth + 1))
            elif not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                return folder / entry.name
    return None
