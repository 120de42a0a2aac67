"""Data sets of the user's own, under a name: a function that returns the images and labels of each split."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vit_attn.data.datasets.held_out import HELD_OUT, partition
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.registry import DATASETS, OWN, DatasetInfo
from vit_attn.data.datasets.splits import Split
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.errors import UserError, some_of

SPLITS = ("train", "val", "test")
Images = Tensor | Sequence[str | Path]
ReadSplits = Callable[[Path], Mapping[str, tuple[Images, Any]]]


@dataclass(frozen=True)
class OwnSplits:
    """Loader of a registered data set, which worker processes can be sent.

    Args:
        name: Name of the data set.
        read: The user's function.
        class_names: Names of the classes by index.
    """

    name: str
    read: ReadSplits
    class_names: tuple[str, ...]

    def __call__(self, root: Path, download: bool, held_out: float | None = None) -> dict[str, Split]:
        """Read the splits; validation and test images are held out of the others where the function gives none.

        Args:
            root: Folder of the files.
            download: Not used, since the function may do what it likes.
            held_out: Fraction of the images that is held out for each missing split; by default 0.1.

        Raises:
            UserError: If what the function returns are no splits of images and labels.
        """
        given = self.read(root)
        if not isinstance(given, Mapping) or "train" not in given or not set(given) <= set(SPLITS):
            names = some_of(list(given)) if isinstance(given, Mapping) else type(given).__name__
            raise UserError(f"data set {self.name}: its function must return train, val and test by name, got {names}")
        splits = {name: self._split(name, given[name], root) for name in SPLITS if name in given}
        missing = [name for name in ("val", "test") if name not in splits]
        if held_out is not None and not missing:
            raise UserError(f"{self.name} has validation and test images of its own: leave out --data.held_out")
        if missing:
            parts = partition(splits["train"], 1 + len(missing), self.name, self.class_names, held_out or HELD_OUT)
            splits |= dict(zip(["train", *missing], parts, strict=True))
        return {name: splits[name] for name in SPLITS}

    def _split(self, name: str, given: Any, root: Path) -> Split:
        where = f"data set {self.name}: its split {name}"
        if not (isinstance(given, tuple | list) and len(given) == 2):
            raise UserError(f"{where} must be images and labels, got {type(given).__name__}")
        images, labels = given[0], torch.as_tensor(np.asarray(given[1]))
        if labels.is_floating_point() or labels.ndim != 1 or len(labels) != len(images) or not len(labels):
            raise UserError(
                f"{where} must have a class index for each image, got {len(images):,} images and labels of shape "
                f"{tuple(labels.shape)}, {labels.dtype}"
            )
        labels = labels.long()
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise UserError(
                f"{where} has labels {int(labels.min())} to {int(labels.max())}, and there are "
                f"{len(self.class_names)} classes, from 0"
            )
        if not isinstance(images, Tensor):
            return Split(None, labels, pictures=ImageFileList(images, root))
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                f"{where} must have images as uint8 (B, 1 or 3, height, width) or as files, got "
                f"{tuple(images.shape)}, {images.dtype}"
            )
        return Split(images, labels)


def register_dataset(
    name: str,
    class_names: Sequence[str],
    img_size: tuple[int, int] | None = None,
    in_chans: int = 3,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augment: Augment = OFF,
) -> Callable[[ReadSplits], ReadSplits]:
    """Register the decorated function as a data set, for ``--data.dataset=NAME``.

    The function takes the folder of the files (``--data.root``) and returns ``train`` and, if there are, ``val`` and
    ``test``, each as images and labels: images as pixels, uint8 (B, C, height, width), or as the paths of files; labels
    as class indices.

    Args:
        name: Name in options.
        class_names: Names of the classes by index.
        img_size: Height and width of the images in pixels; by default 224 by 224. Others are resized.
        in_chans: Channels of the images, 3 for colour and 1 for grey.
        mean: Mean of the training images by channel, of pixels in [0, 1]; by default it is measured.
        std: Standard deviation of the training images by channel; by default it is measured.
        augment: Augmentation that leaves the class of training images as it is; by default none.

    Raises:
        UserError: If the name is not of lower-case letters, digits and ``_`` or is taken, or if there are no classes.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"a data set's name must be of lower-case letters, digits and _, got {name!r}")
    if name in (*DATASETS, *OWN):
        raise UserError(f"there is a data set {name!r} already")
    if isinstance(class_names, str) or len(class_names) < 2:
        raise UserError(f"data set {name}: class_names must be the names of at least two classes, got {class_names!r}")

    def register(read: ReadSplits) -> ReadSplits:
        load = OwnSplits(name, read, tuple(map(str, class_names)))
        info = DatasetInfo(load.class_names, img_size, mean, std, load, augment, in_chans, needs_files=False)
        DATASETS[name] = replace(info, holds_out=True, module=read.__module__)
        return read

    return register
