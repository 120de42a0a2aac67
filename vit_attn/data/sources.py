"""Data sets by name: what is known about each without touching a file, and how its splits are loaded."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from vit_attn.data.augment import OFF, Augment
from vit_attn.data.coins import GLYPH_NAMES, SPLITS, Answer, Coins
from vit_attn.errors import UserError, did_you_mean

ROOT_VARIABLE = "VIT_ATTN_DATA"
"""Environment variable with the folder of the data sets' files."""


@dataclass(frozen=True)
class Split:
    """Images of one split, uint8 (B, C, height, width), and labels; ``answer(i)`` where the answer is known."""

    images: Tensor
    labels: Tensor
    answer: Callable[[int], Answer] | None = None


@dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        class_names: Names of the classes by index.
        img_size: Height and width of the images in pixels.
        mean: Mean of the training images by channel, of pixels in [0, 1].
        std: Standard deviation of the training images by channel, of pixels in [0, 1].
        load: From the folder of the files and whether they may be downloaded, to ``train``, ``val`` and ``test``.
        augment: What training images stand without losing their class.
    """

    class_names: tuple[str, ...]
    img_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    load: Callable[[Path, bool], dict[str, Split]]
    augment: Augment = OFF


def find_source(name: str) -> Source:
    """The data set of that name.

    Raises:
        UserError: If there is none.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, SOURCES)}; known are {', '.join(SOURCES)}")
    return SOURCES[name]


def stratified_split(labels: Sequence[int], held_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices to keep and to hold out; every class gives the same share, up to one image.

    >>> keep, held = stratified_split([0, 1] * 50, 10)
    >>> len(keep), sorted(index % 2 for index in held.tolist())
    (90, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    chosen = np.linspace(0, len(labels), held_out, endpoint=False).astype(int)  # evenly spaced through the classes
    held = np.zeros(len(labels), dtype=bool)
    held[by_class[chosen]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _load_coins(_root: Path, _download: bool) -> dict[str, Split]:
    splits = {name: Coins(name) for name in SPLITS}
    return {name: Split(*coins.tensors(), coins.answer) for name, coins in splits.items()}


VALIDATION_IMAGES = 5_000


def _load_cifar10(root: Path, download: bool) -> dict[str, Split]:
    _require_cifar10(root, download)
    labelled, test = CIFAR10(str(root), train=True), CIFAR10(str(root), train=False)
    kept, held = stratified_split(labelled.targets, VALIDATION_IMAGES)
    return {
        "train": _cifar10_split(labelled, kept),
        "val": _cifar10_split(labelled, held),
        "test": _cifar10_split(test, np.arange(len(test))),
    }


def _cifar10_split(dataset: CIFAR10, indices: np.ndarray) -> Split:
    images = torch.from_numpy(dataset.data[indices]).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(dataset.targets)[indices])


def _require_cifar10(root: Path, download: bool) -> None:
    """Leave the files alone where they are whole, download them where there are none, else say what is wrong."""
    folder = root / CIFAR10.base_folder
    sums = {name: md5 for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)}
    sums[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    missing = [name for name in sums if not (folder / name).is_file()]
    if len(missing) < len(sums):
        present = [name for name in sums if name not in missing]
        damaged = [name for name in present if not check_integrity(str(folder / name), sums[name])]
        if bad := [f"{name} is missing" for name in missing] + [f"{name} is damaged" for name in damaged]:
            raise UserError(f"cifar10 in {folder} is not whole: {', '.join(bad)}; remove that folder to download again")
        return
    how = f"unpack {CIFAR10.url} into {root}, or name the folder that holds {CIFAR10.base_folder}/ with --data.root"
    if not download:
        raise UserError(f"cifar10 not found: no {folder}; {how}, or allow --data.download=true")
    made = not root.exists()
    try:
        CIFAR10(str(root), download=True)
    except (OSError, RuntimeError) as error:
        if made:
            shutil.rmtree(root, ignore_errors=True)
        raise UserError(f"cifar10 not found: no {folder}, and the download failed ({error}); {how}") from error


SOURCES = {
    "cifar10": Source(
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        img_size=(32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        load=_load_cifar10,
        augment=Augment(crop_padding=4, flip=0.5).over(OFF),
    ),
    "coins": Source(
        class_names=GLYPH_NAMES,
        img_size=(32, 32),
        mean=(0.25, 0.25, 0.25),
        std=(0.18, 0.18, 0.18),
        load=_load_coins,
    ),
}
