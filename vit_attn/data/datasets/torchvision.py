"""Torchvision's data sets for classification, opened by name.

Those in :data:`TORCHVISION_SETS` are tested on files in their own format. The names in :data:`DROPPED` were once
supported: they are read through attributes of torchvision's classes that nothing here tests.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vit_attn.data.datasets.files.folder import complete
from vit_attn.data.datasets.files.roots import refuse_other_root
from vit_attn.data.datasets.image_list import ImageFileList, ItemImageList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.torchvision_specs import TORCHVISION_SPECS, Options, TorchvisionSpec
from vit_attn.errors import UserError


def _source(name: str, recipe: TorchvisionSpec) -> DatasetInfo:
    known = recipe.classes
    names = tuple(f"class {number}" for number in range(known)) if isinstance(known, int) else tuple(known)
    load = partial(_load, name, names)
    return DatasetInfo(names, recipe.img_size, recipe.mean, recipe.std, load, recipe.augment, recipe.in_chans)


def _load(name: str, class_names: Sequence[str], root: Path, download: bool) -> dict[str, Split]:
    recipe = TORCHVISION_SPECS[name]
    opened = {split: _open(name, recipe, root, download, options) for split, options in recipe.splits.items()}
    names = class_names
    if isinstance(recipe.classes, int):
        first = next(iter(opened.values()))
        names = [_plain(each) for each in _names_of(first)] or class_names
        if len(names) != recipe.classes:
            raise UserError(f"{name} in {root} has {len(names)} classes, not {recipe.classes}: the files are not whole")
    splits = {}
    for split, items in opened.items():
        splits[split] = _split(name, items, tuple(names), Items(name, root, split, items))
    return complete(splits, name, names)


class Items:
    """The pictures of a split that torchvision hands out by number; each process that reads them opens its own.

    Args:
        name: The data set.
        root: Where it is.
        split: Our name of the split.
        opened: What torchvision opened, for this process.
    """

    def __init__(self, name: str, root: Path, split: str, opened: Any) -> None:
        self.name, self.root, self.split, self.opened = name, root, split, opened

    def __call__(self, number: int) -> Any:
        """The picture."""
        if self.opened is None:
            recipe = TORCHVISION_SPECS[self.name]
            self.opened = recipe.kind(str(self.root), **recipe.splits[self.split])
        return self.opened[number][0]

    def __getstate__(self) -> dict[str, Any]:
        """Without what was opened, which may hold files and modules."""
        return vars(self) | {"opened": None}


def _split(name: str, items: Any, class_names: tuple[str, ...], reopened: Items) -> Split:
    recipe = TORCHVISION_SPECS[name]
    labels = torch.as_tensor(np.asarray(recipe.labels(items)).astype(np.int64))
    if recipe.arrays:
        return Split(torch.from_numpy(np.array(recipe.arrays(items))), labels, class_names=class_names)
    pictures = ImageFileList(recipe.files(items), reopened.root) if recipe.files else None
    pictures = pictures or ItemImageList(reopened, name, np.arange(len(items)))
    return Split(None, labels, pictures=pictures, class_names=class_names)


def _names_of(items: Any) -> Sequence[Any]:
    for attribute in ("classes", "categories", "all_categories"):
        if names := getattr(items, attribute, None):
            return names
    return ()


def _plain(name: Any) -> str:
    return str(name[0] if isinstance(name, tuple) else name)


def _open(name: str, recipe: TorchvisionSpec, root: Path, download: bool, options: Options) -> Any:
    """Torchvision's data set, downloaded if it is not there and may be.

    Raises:
        UserError: If it is not there, or if a package is missing that reads it.
    """
    made = not root.exists()
    if root.is_file():
        refuse_other_root(name, root)
    try:
        return recipe.kind(str(root), **options)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs a package that is not installed: pip install {error.name}") from error
    except (RuntimeError, OSError, ValueError) as error:
        absent = error
    if "h5py" in str(absent):
        raise UserError(f"{name} needs a package that is not installed: pip install h5py") from absent
    refuse_other_root(name, root)
    where = "name the folder that holds it with --data.root"
    if not download or not recipe.downloads:
        allow = "" if not recipe.downloads else ", or allow --data.download=true"
        raise UserError(f"{name} not found in {root} ({_line(absent)}); {where}{allow}") from absent
    try:
        return recipe.kind(str(root), **options, download=True)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs a package that is not installed: pip install {error.name}") from error
    except (RuntimeError, OSError, ValueError) as error:
        if made:
            shutil.rmtree(root, ignore_errors=True)
        raise UserError(f"{name} not found in {root}, and the download failed ({_line(error)}); {where}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


TORCHVISION_SETS = {name: _source(name, recipe) for name, recipe in TORCHVISION_SPECS.items()}

DROPPED: dict[str, str] = {}
