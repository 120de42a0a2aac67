"""Torchvision's data sets for classification, opened by name."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vit_attn.data.folder import complete
from vit_attn.data.recipes import RECIPES, Options, Recipe
from vit_attn.data.splits import FilePictures, ItemPictures, Source, Split
from vit_attn.errors import UserError


def _source(name: str, recipe: Recipe) -> Source:
    known = recipe.classes
    names = tuple(f"class {number}" for number in range(known)) if isinstance(known, int) else tuple(known)
    load = partial(_load, name, recipe, names)
    return Source(names, recipe.img_size, recipe.mean, recipe.std, load, recipe.augment, recipe.in_chans)


def _load(name: str, recipe: Recipe, class_names: Sequence[str], root: Path, download: bool) -> dict[str, Split]:
    opened = {split: _open(name, recipe, root, download, options) for split, options in recipe.splits.items()}
    names = class_names
    if isinstance(recipe.classes, int):
        first = next(iter(opened.values()))
        names = [_plain(each) for each in _names_of(first)] or class_names
        if len(names) != recipe.classes:
            raise UserError(f"{name} in {root} has {len(names)} classes, not {recipe.classes}: the files are not whole")
    splits = {split: _split(name, recipe, items, tuple(names)) for split, items in opened.items()}
    return complete(splits, name, names)


def _split(name: str, recipe: Recipe, items: Any, class_names: tuple[str, ...]) -> Split:
    labels = torch.as_tensor(np.asarray(recipe.labels(items)).astype(np.int64))
    if recipe.arrays:
        return Split(torch.from_numpy(np.array(recipe.arrays(items))), labels, class_names=class_names)
    pictures = (
        FilePictures(recipe.files(items))
        if recipe.files
        else ItemPictures(lambda i: items[i][0], name, np.arange(len(items)))
    )
    return Split(None, labels, pictures=pictures, class_names=class_names)


def _names_of(items: Any) -> Sequence[Any]:
    for attribute in ("classes", "categories", "all_categories"):
        if names := getattr(items, attribute, None):
            return names
    return ()


def _plain(name: Any) -> str:
    return str(name[0] if isinstance(name, tuple) else name)


def _open(name: str, recipe: Recipe, root: Path, download: bool, options: Options) -> Any:
    """Torchvision's data set, downloaded if it is not there and may be.

    Raises:
        UserError: If it is not there, or if a package is missing that reads it.
    """
    made = not root.exists()
    try:
        return recipe.kind(str(root), **options)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs a package that is not installed: pip install {error.name}") from error
    except (RuntimeError, OSError, ValueError) as error:
        absent = error
    if "h5py" in str(absent):
        raise UserError(f"{name} needs a package that is not installed: pip install h5py") from absent
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


TORCHVISION_SETS = {name: _source(name, recipe) for name, recipe in RECIPES.items()}
