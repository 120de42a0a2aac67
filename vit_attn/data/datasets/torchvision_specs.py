"""Specifications of torchvision's data sets for classification: splits, classes and files.

All of them are tested on files in their own format (``tests/data/datasets/test_torchvision.py``), since some are read
through attributes that torchvision does not document.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torchvision import datasets

from vit_attn.data.datasets.files.folder import PHOTOS
from vit_attn.data.transforms.augment import OFF, Augment

Options = Mapping[str, Any]
TRAIN_TEST: Mapping[str, Options] = {"train": {"split": "train"}, "test": {"split": "test"}}
ALL_THREE: Mapping[str, Options] = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
BY_FLAG: Mapping[str, Options] = {"train": {"train": True}, "test": {"train": False}}
TOGETHER: Mapping[str, Options] = {"all": {}}
DIGITS = tuple("0123456789")
SHIFTED = Augment(crop_padding=2).over(OFF)
LAND = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
SIGNS = (
    "speed limit 20, speed limit 30, speed limit 50, speed limit 60, speed limit 70, speed limit 80, end of limit 80, "
    "speed limit 100, speed limit 120, no passing, no passing of lorries, right of way, priority road, yield, stop, "
    "no vehicles, no lorries, no entry, danger, curve left, curve right, double curve, bumpy road, slippery road, "
    "road narrows, road works, traffic lights, pedestrians, children, bicycles, ice or snow, wild animals, "
    "end of limits, turn right, turn left, ahead only, ahead or right, ahead or left, keep right, keep left, "
    "roundabout, end of no passing, end of no passing of lorries"
)


@dataclass(frozen=True)
class TorchvisionSpec:
    """Specification of a data set of torchvision.

    Args:
        kind: Torchvision's class.
        classes: Names of the classes; their number if the names are known from the files only.
        splits: Our names of its splits, with the arguments of ``kind`` that open each.
        files: Paths of the pictures of an opened split; without them its items are read.
        labels: Class indices of an opened split.
        arrays: Pixels (B, C, height, width) of an opened split that is in memory.
        img_size: Height and width in pixels, if all pictures have the same.
        in_chans: 3 for colour, 1 for grey.
        augment: Augmentation that leaves the class of training images as it is.
        mean: Mean of the training images by channel, if it is known.
        std: Standard deviation of the training images by channel, if it is known.
        downloads: Whether torchvision can download it.
    """

    kind: Callable[..., Any]
    classes: Sequence[str] | int
    splits: Mapping[str, Options]
    files: Callable[[Any], Sequence[Any]] | None = None
    labels: Callable[[Any], Any] = lambda items: items._labels
    arrays: Callable[[Any], Any] | None = None
    img_size: tuple[int, int] | None = None
    in_chans: int = 3
    augment: Augment = PHOTOS
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    downloads: bool = True


def _targets(items: Any) -> Any:
    return items.targets


def _image_files(items: Any) -> Sequence[Any]:
    return items._image_files


def _from_samples(number: int) -> Callable[[Any], list[Any]]:
    return lambda items: [each[number] for each in (getattr(items, "_samples", None) or items.samples)]


def _grey(items: Any) -> Any:
    return np.asarray(items.data)[:, None]


def _caltech(folder: str, file: Callable[[int, int], str]) -> Callable[[Any], list[str]]:
    def paths(items: Any) -> list[str]:
        pairs = zip(items.y, items.index, strict=True)
        return [os.path.join(items.root, folder, items.categories[y], file(y, number)) for y, number in pairs]

    return paths


def _pcam_labels(items: Any) -> Any:
    with items.h5py.File(items._base_folder / items._FILES[items._split]["targets"][0]) as file:
        return file["y"][:, 0, 0, 0].astype(np.int64)


def _grey_spec(kind: Callable[..., Any], classes: Sequence[str], **options: Any) -> TorchvisionSpec:
    settings: dict[str, Any] = {"splits": BY_FLAG, "img_size": (28, 28), "augment": SHIFTED} | options
    return TorchvisionSpec(kind, classes, labels=settings.pop("labels", _targets), arrays=_grey, in_chans=1, **settings)


def _letters(kind: str, first: int = 0) -> TorchvisionSpec:
    spec = _grey_spec(
        datasets.EMNIST,
        datasets.EMNIST.classes_split_dict[kind][first:],
        splits={name: {"split": kind, **flag} for name, flag in BY_FLAG.items()},
        labels=lambda items: np.asarray(items.targets) - first,
    )
    return replace(spec, arrays=lambda items: np.asarray(items.data).transpose(0, 2, 1)[:, None])  # they lie sideways


TORCHVISION_SPECS = {
    "mnist": _grey_spec(datasets.MNIST, DIGITS, mean=(0.1307,), std=(0.3081,)),
    "fashionmnist": _grey_spec(
        datasets.FashionMNIST,
        datasets.FashionMNIST.classes,
        augment=Augment(crop_padding=2, flip=0.5).over(OFF),
        mean=(0.2860,),
        std=(0.3530,),
    ),
    "kmnist": _grey_spec(datasets.KMNIST, datasets.KMNIST.classes),
    "emnist": _letters("balanced"),
    "emnist_letters": _letters("letters", 1),
    "qmnist": _grey_spec(datasets.QMNIST, DIGITS, labels=lambda items: np.asarray(items.targets)[:, 0]),
    "usps": _grey_spec(datasets.USPS, DIGITS, img_size=(16, 16)),
    "svhn": TorchvisionSpec(
        datasets.SVHN,
        DIGITS,
        TRAIN_TEST,
        labels=lambda items: items.labels,
        arrays=lambda items: items.data,
        img_size=(32, 32),
        augment=SHIFTED,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
    ),
    "stl10": TorchvisionSpec(
        datasets.STL10,
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        TRAIN_TEST,
        labels=lambda items: items.labels,
        arrays=lambda items: items.data,
        img_size=(96, 96),
        augment=Augment(crop_padding=12, flip=0.5).over(OFF),
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
    ),
    "flowers102": TorchvisionSpec(datasets.Flowers102, datasets.Flowers102.classes, ALL_THREE, _image_files),
    "food101": TorchvisionSpec(datasets.Food101, 101, TRAIN_TEST, _image_files),
    "oxfordiiitpet": TorchvisionSpec(
        datasets.OxfordIIITPet, 37, {"train": {"split": "trainval"}, "test": {"split": "test"}}, lambda it: it._images
    ),
    "dtd": TorchvisionSpec(datasets.DTD, 47, ALL_THREE, _image_files),
    "eurosat": TorchvisionSpec(
        datasets.EuroSAT,
        LAND.split(),
        TOGETHER,
        _from_samples(0),
        _targets,
        img_size=(64, 64),
        augment=Augment(crop_padding=4, flip=0.5).over(OFF),
    ),
    "gtsrb": TorchvisionSpec(
        datasets.GTSRB,
        SIGNS.split(", "),
        TRAIN_TEST,
        _from_samples(0),
        _from_samples(1),
        augment=Augment(random_resized_crop=0.6).over(OFF),
    ),
    "fgvcaircraft": TorchvisionSpec(datasets.FGVCAircraft, 100, ALL_THREE, _image_files),
    "stanfordcars": TorchvisionSpec(datasets.StanfordCars, 196, TRAIN_TEST, _from_samples(0), _from_samples(1)),
    "country211": TorchvisionSpec(
        datasets.Country211, 211, {**ALL_THREE, "val": {"split": "valid"}}, _from_samples(0), _targets
    ),
    "renderedsst2": TorchvisionSpec(
        datasets.RenderedSST2, ("negative", "positive"), ALL_THREE, _from_samples(0), _from_samples(1), augment=OFF
    ),
    "caltech101": TorchvisionSpec(
        datasets.Caltech101,
        101,
        TOGETHER,
        _caltech("101_ObjectCategories", lambda _, number: f"image_{number:04d}.jpg"),
        lambda items: items.y,
    ),
    "caltech256": TorchvisionSpec(
        datasets.Caltech256,
        257,
        TOGETHER,
        _caltech("256_ObjectCategories", lambda y, number: f"{y + 1:03d}_{number:04d}.jpg"),
        lambda items: items.y,
    ),
    "pcam": TorchvisionSpec(
        datasets.PCAM,
        ("no tumour", "tumour"),
        ALL_THREE,
        labels=_pcam_labels,
        img_size=(96, 96),
        augment=Augment(crop_padding=4, flip=0.5).over(OFF),
    ),
    "sun397": TorchvisionSpec(datasets.SUN397, 397, TOGETHER, _image_files),
    "imagenette": TorchvisionSpec(
        datasets.Imagenette,
        [names[0] for names in datasets.Imagenette._WNID_TO_CLASS.values()],
        {"train": {"split": "train"}, "val": {"split": "val"}},
        _from_samples(0),
        _from_samples(1),
    ),
    "imagenet": TorchvisionSpec(
        datasets.ImageNet,
        1000,
        {"train": {"split": "train"}, "val": {"split": "val"}},
        _from_samples(0),
        _targets,
        downloads=False,
    ),
}
