"""Torchvision's data sets for classification, opened by name.

All of them are tested on files in their own format. :data:`DROPPED` names those that an earlier version read untested.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vit_attn.data.datasets.downloads import by_hand
from vit_attn.data.datasets.files.folder import complete
from vit_attn.data.datasets.files.roots import refuse_other_root
from vit_attn.data.datasets.image_list import ImageFileList, ItemImageList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.torchvision_specs import TORCHVISION_SPECS, Options, TorchvisionSpec
from vit_attn.errors import UserError, missing_package


def _source(name: str, spec: TorchvisionSpec) -> DatasetInfo:
    known = spec.classes
    names = tuple(f"class {number}" for number in range(known)) if isinstance(known, int) else tuple(known)
    load = partial(_load, name, names)
    return DatasetInfo(names, spec.img_size, spec.mean, spec.std, load, spec.augment, spec.in_chans)


def _load(name: str, class_names: Sequence[str], root: Path, download: bool) -> dict[str, Split]:
    spec = TORCHVISION_SPECS[name]
    opened = {split: _open(name, spec, root, download, options) for split, options in spec.splits.items()}
    names = class_names
    if isinstance(spec.classes, int):
        first = next(iter(opened.values()))
        names = [_plain(each) for each in _names_of(first)] or class_names
        if len(names) != spec.classes:
            raise UserError(f"{name} in {root} has {len(names)} classes, not {spec.classes}: the files are incomplete")
    splits = {}
    for split, items in opened.items():
        splits[split] = _split(name, items, tuple(names), Items(name, root, split, items))
    return complete(splits, name, names)


class Items:
    """Pictures of a split that torchvision returns by number; each process that reads them opens its own data set.

    Args:
        name: The data set.
        root: Folder of its files.
        split: Our name of the split.
        opened: Torchvision's data set, for this process.
    """

    def __init__(self, name: str, root: Path, split: str, opened: Any) -> None:
        self.name, self.root, self.split, self.opened = name, root, split, opened

    def __call__(self, number: int) -> Any:
        """The picture."""
        if self.opened is None:
            spec = TORCHVISION_SPECS[self.name]
            self.opened = spec.kind(str(self.root), **spec.splits[self.split])
        return self.opened[number][0]

    def __getstate__(self) -> dict[str, Any]:
        """State without the opened data set, which may hold files and modules."""
        return vars(self) | {"opened": None}


def _split(name: str, items: Any, class_names: tuple[str, ...], reopened: Items) -> Split:
    spec = TORCHVISION_SPECS[name]
    labels = torch.as_tensor(np.asarray(spec.labels(items)).astype(np.int64))
    if spec.arrays:
        return Split(torch.from_numpy(np.array(spec.arrays(items))), labels, class_names=class_names)
    pictures = ImageFileList(spec.files(items), reopened.root) if spec.files else None
    pictures = pictures or ItemImageList(reopened, name, np.arange(len(items)))
    return Split(None, labels, pictures=pictures, class_names=class_names)


def _names_of(items: Any) -> Sequence[Any]:
    for attribute in ("classes", "categories", "all_categories"):
        if names := getattr(items, attribute, None):
            return names
    return ()


def _plain(name: Any) -> str:
    return str(name[0] if isinstance(name, tuple) else name)


def _open(name: str, spec: TorchvisionSpec, root: Path, download: bool, options: Options) -> Any:
    """Open torchvision's data set, and download it if it is missing and that is allowed.

    Raises:
        UserError: If it is missing, or if a package that reads it is.
    """
    made = not root.exists()
    if root.is_file():
        refuse_other_root(name, root)
    try:
        return spec.kind(str(root), **options)
    except ModuleNotFoundError as error:
        raise missing_package(name, error.name or str(error)) from error
    except (RuntimeError, OSError, ValueError) as error:
        absent = error
    if "h5py" in str(absent):
        raise missing_package(name, "h5py") from absent
    refuse_other_root(name, root)
    where = "name the folder that holds it with --data.root"
    if not download or not spec.downloads:
        allow = "" if not spec.downloads else ", or allow --data.download=true"
        raise UserError(f"{name} not found in {root} ({_line(absent)}); {where}{allow}") from absent
    try:
        return spec.kind(str(root), **options, download=True)
    except ModuleNotFoundError as error:
        raise missing_package(name, error.name or str(error)) from error
    except (RuntimeError, OSError, ValueError) as error:
        if made:
            shutil.rmtree(root, ignore_errors=True)
        if "gdown" in str(error):
            raise missing_package(f"the download of {name}", "gdown") from error
        how = f"{by_hand(error)}, or" if by_hand(error) else ";"
        raise UserError(f"{name} not found in {root}, and the download failed ({_line(error)}){how} {where}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":")


TORCHVISION_SETS = {name: _source(name, spec) for name, spec in TORCHVISION_SPECS.items()}

DROPPED = {
    "places365": "list its images with their labels in a table, for --data.dataset=csv",
    "inaturalist": "put its folders 2021_train and 2021_valid into one, for --data.dataset=folder",
}
"""Advice for data sets that an earlier version read through torchvision."""
