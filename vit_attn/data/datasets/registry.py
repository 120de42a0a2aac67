"""Data sets by name: what is known about each without touching a file, and how its splits are loaded."""

from dataclasses import replace
from pathlib import Path

from vit_attn.data.datasets.cifar import CIFAR_SETS
from vit_attn.data.datasets.coins import GLYPH_NAMES, SPLITS, Coins
from vit_attn.data.datasets.files.csv import csv_source
from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.files.roots import own_picture
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.timm import BY_PREFIX
from vit_attn.data.datasets.torchvision import TORCHVISION_SETS
from vit_attn.errors import UserError, did_you_mean

__all__ = ["DATASETS", "KNOWN_NAMES", "ROOT_VARIABLE", "DatasetInfo", "Split", "find_dataset"]

ROOT_VARIABLE = "VIT_ATTN_DATA"
"""Environment variable with the folder of the data sets' files."""


def _load_coins(_root: Path, _download: bool) -> dict[str, Split]:
    splits = {name: Coins(name) for name in SPLITS}
    return {name: Split(*coins.tensors(), coins.ground_truth) for name, coins in splits.items()}


DATASETS = {
    **CIFAR_SETS,
    "coins": DatasetInfo(
        class_names=GLYPH_NAMES,
        img_size=(32, 32),
        mean=(0.25, 0.25, 0.25),
        std=(0.18, 0.18, 0.18),
        load=_load_coins,
    ),
    **TORCHVISION_SETS,
}
OWN = ("folder", "csv")
"""Data sets whose classes are read from the user's files."""
KNOWN_NAMES = (*DATASETS, *OWN)


def find_dataset(name: str, root: Path | None = None, download: bool = True, columns: str | None = None) -> DatasetInfo:
    """The data set of that name.

    Args:
        name: A name, or one that begins with a prefix of timm's.
        root: The folder of the files, or the table of ``csv``.
        download: Whether missing files may be downloaded, where the classes are known only after that.
        columns: Which columns of the table of ``csv`` are which.

    Raises:
        UserError: If there is none.
    """
    if columns is not None and name != "csv":
        raise UserError(f"columns are those of a table, and {name} has none: leave out --data.columns")
    if name in DATASETS:
        unread = name == "coins" and root is not None and (root.is_file() or own_picture(root) is not None)
        said = [f"{root} is not read, as coins needs no files: for your own, add --data.dataset=folder, or =csv"]
        return replace(DATASETS[name], remarks=said) if unread else DATASETS[name]
    if name in OWN:
        if root is None:
            what = "the folder with a sub-folder for each class" if name == "folder" else "the CSV file"
            raise UserError(f"{name} needs to know where: --data.root names {what}")
        return csv_source(root, columns) if name == "csv" else folder_source(root)
    prefix = name.partition("/")[0].lower()
    if "/" in name and (prefix == "torch" or prefix in BY_PREFIX):
        return _timm_source(prefix, name, root, download)
    known = f"{', '.join(KNOWN_NAMES)}, and timm's {', '.join(f'{each}/…' for each in BY_PREFIX)}"
    squeezed = name.lower().replace("-", "").replace("_", "")
    hint = did_you_mean(name, KNOWN_NAMES) or did_you_mean(squeezed, KNOWN_NAMES)
    raise UserError(f"unknown data set {name!r}{hint}; known are {known}")


def _timm_source(prefix: str, name: str, root: Path | None, download: bool) -> DatasetInfo:
    """A data set by one of timm's prefixes; ``torch/`` names torchvision's, which we know ourselves."""
    if prefix == "torch":
        ours = name.partition("/")[2].lower().replace("_", "")
        return find_dataset({"imagefolder": "folder"}.get(ours, ours), root, download)
    return BY_PREFIX[prefix](name, root, download)
