"""CIFAR-10 and CIFAR-100, read from their original files, whose checksums are verified."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from vit_attn.data.datasets.files.roots import refuse_other_root
from vit_attn.data.datasets.held_out import stratified_split
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.errors import UserError

VALIDATION_IMAGES = 5_000
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_NAMES = tuple(
    (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
        "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
        "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
        "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
        "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    ).split()
)


def _load(kind: type[CIFAR10], root: Path, download: bool, held_out: float | None = None) -> dict[str, Split]:
    _require(kind, root, download)
    labelled, test = kind(str(root), train=True), kind(str(root), train=False)
    count = VALIDATION_IMAGES if held_out is None else round(held_out * len(labelled))
    kept, held = stratified_split(labelled.targets, count)
    return {
        "train": _split(labelled, kept),
        "val": replace(_split(labelled, held), held_out=True),
        "test": _split(test, np.arange(len(test))),
    }


def _split(dataset: CIFAR10, indices: np.ndarray) -> Split:
    images = torch.from_numpy(dataset.data[indices]).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(dataset.targets)[indices])


def _require(kind: type[CIFAR10], root: Path, download: bool) -> None:
    """Download the files if there are none; files that are there are checked and never overwritten."""
    folder, name = root / kind.base_folder, kind.__name__.lower()
    sums = {name: md5 for name, md5 in (*kind.train_list, *kind.test_list)}
    sums[kind.meta["filename"]] = kind.meta["md5"]
    missing = [name for name in sums if not (folder / name).is_file()]
    if len(missing) < len(sums):
        present = [name for name in sums if name not in missing]
        corrupt = [name for name in present if not check_integrity(str(folder / name), sums[name])]
        if bad := [f"{name} is missing" for name in missing] + [f"{name} is corrupt" for name in corrupt]:
            raise UserError(f"{name} in {folder} is incomplete: {', '.join(bad)}; remove that folder to download again")
        return
    refuse_other_root(name, root)
    how = f"unpack {kind.url} into {root}, or name the folder that holds {kind.base_folder}/ with --data.root"
    if not download:
        raise UserError(f"{name} not found: no {folder}; {how}, or allow --data.download=true")
    made = not root.exists()
    try:
        kind(str(root), download=True)
    except (OSError, RuntimeError) as error:
        if made:
            shutil.rmtree(root, ignore_errors=True)
        raise UserError(f"{name} not found: no {folder}, and the download failed ({error}); {how}") from error


def _source(
    kind: type[CIFAR10], names: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> DatasetInfo:
    load = partial(_load, kind)
    return DatasetInfo(names, (32, 32), mean, std, load, Augment(crop_padding=4, flip=0.5).over(OFF), holds_out=True)


CIFAR_SETS = {
    "cifar10": _source(CIFAR10, CIFAR10_NAMES, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": _source(CIFAR100, CIFAR100_NAMES, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
