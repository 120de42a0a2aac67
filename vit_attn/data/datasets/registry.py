"""Registry of data sets: what is known of each without reading a file, and how its splits are loaded.

A new data set is a :class:`DatasetInfo` in ``DATASETS``, or outside of this package a function that
:func:`~vit_attn.data.datasets.own.register_dataset` decorates; commands, known statistics and messages take their lists
from there.
"""

from dataclasses import replace
from pathlib import Path

from vit_attn.data.datasets.cifar import CIFAR_SETS
from vit_attn.data.datasets.coins import COINS
from vit_attn.data.datasets.files.csv import csv_source
from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.files.roots import own_picture
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.timm import BY_PREFIX
from vit_attn.data.datasets.torchvision import DROPPED, TORCHVISION_SETS
from vit_attn.errors import UserError, did_you_mean

__all__ = ["DATASETS", "ROOT_VARIABLE", "DatasetInfo", "Split", "find_dataset"]

ROOT_VARIABLE = "VIT_ATTN_DATA"
"""Environment variable with the folder of the data sets' files."""
DATASETS: dict[str, DatasetInfo] = {**CIFAR_SETS, "coins": COINS, **TORCHVISION_SETS}
OWN = ("folder", "csv")
"""Data sets whose classes are found in the user's files."""


def find_dataset(name: str, root: Path | None = None, download: bool = True, columns: str | None = None) -> DatasetInfo:
    """Find a data set by name.

    Args:
        name: A name, or one that begins with one of timm's prefixes.
        root: Folder of the files, or the table of ``csv``.
        download: Whether missing files may be downloaded, if the classes are known only after that.
        columns: Names of the columns of ``csv``.

    Raises:
        UserError: If there is none.
    """
    if columns is not None and name != "csv":
        raise UserError(f"columns are those of a table, and {name} has none: leave out --data.columns")
    if name in DATASETS:
        return _known(name, root)
    if name in OWN:
        if root is None:
            what = "the folder with a sub-folder for each class" if name == "folder" else "the CSV file"
            raise UserError(f"{name} needs to know where: --data.root names {what}")
        return csv_source(root, columns) if name == "csv" else folder_source(root)
    if name in DROPPED:
        raise UserError(f"{name} is no longer read as a data set of torchvision's: {DROPPED[name]}")
    prefix = name.partition("/")[0].lower()
    if "/" in name and (prefix == "torch" or prefix in BY_PREFIX):
        return _timm_source(prefix, name, root, download)
    if Path(name).exists() or name.startswith((".", "/", "~")):
        kind = "csv" if Path(name).is_file() else "folder"
        raise UserError(f"{name!r} is no data set's name: for your own images --data.dataset={kind} --data.root={name}")
    names = (*DATASETS, *OWN)
    known = f"{', '.join(names)}, and timm's {', '.join(f'{each}/…' for each in BY_PREFIX)}"
    squeezed = name.lower().replace("-", "").replace("_", "")
    hint = ", did you mean 'folder'?" if squeezed == "imagefolder" else ""
    hint = hint or did_you_mean(name, names) or did_you_mean(squeezed, names)
    raise UserError(f"unknown data set {name!r}{hint}; known are {known}; --import names the module of one of your own")


def _known(name: str, root: Path | None) -> DatasetInfo:
    """A registered data set, with a remark if it ignores the user's own files."""
    source = DATASETS[name]
    if source.needs_files or root is None or not (root.is_file() or own_picture(root) is not None):
        return source
    ignored = f"{root} is not read, as {name} needs no files: for your own, add --data.dataset=folder, or =csv"
    return replace(source, remarks=[ignored])


def _timm_source(prefix: str, name: str, root: Path | None, download: bool) -> DatasetInfo:
    """A data set by one of timm's prefixes; those of ``torch/`` are in our own registry."""
    if prefix == "torch":
        ours = name.partition("/")[2].lower().replace("_", "")
        return find_dataset({"imagefolder": "folder"}.get(ours, ours), root, download)
    return BY_PREFIX[prefix](name, root, download)
