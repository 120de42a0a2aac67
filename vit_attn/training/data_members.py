"""Members of a data module of any kind: those that it has, else those that its loaders and data sets tell.

A data module needs loaders whose batches are (images, labels). All else is optional: see :mod:`vit_attn.data_protocol`.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from vit_attn.errors import UserError

BATCH = "a batch must be (images, labels): normalised floats (B, channels, height, width) and class indices (B,)"
_SET_UP: WeakSet[Any] = WeakSet()
"""Data modules that were set up here, before a Trainer does it."""


def num_classes_of(data: Any) -> int:
    """Find the number of classes: ``num_classes``, else the number of class names.

    Raises:
        UserError: If neither is known.
    """
    if (count := getattr(data, "num_classes", None)) is not None:
        return int(count)
    names = class_names_of(data)
    if names is None:
        raise UserError(
            f"{type(data).__name__} does not say how many classes it has, which the network's head needs: give it "
            "`num_classes`, or `class_names`, or a data set with `classes`"
        )
    return len(names)


def class_names_of(data: Any) -> tuple[str, ...] | None:
    """Find the names of the classes: ``class_names``, else the ``classes`` of a data set; None if there are neither.

    Args:
        data: A data module, or a loader.
    """
    if names := getattr(data, "class_names", None):
        return tuple(map(str, names))
    for stage in ("train", "val"):
        loader = _loader(data, stage)
        dataset = getattr(loader, "dataset", None)
        while dataset is not None:  # a Subset has the data set that it is of
            names = getattr(dataset, "classes", None)
            if isinstance(names, Sequence) and names:
                return tuple(map(str, names))
            dataset = getattr(dataset, "dataset", None)
    return None


def names_of_classes(names: Sequence[str], count: int) -> list[str]:
    """Return as many names as there are classes; those that are unknown are numbers.

    >>> names_of_classes(["cat"], 3)
    ['cat', 'class 1', 'class 2']
    """
    return [*names, *(f"class {index}" for index in range(len(names), count))]


def img_size_of(data: Any) -> tuple[int, int]:
    """Find height and width of the images in pixels: ``img_size``, else those of the first image.

    Raises:
        UserError: If there is no such image.
    """
    size = getattr(data, "img_size", None)
    if size is None:
        height, width = _first_image(data).shape[-2:]
        return height, width
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def in_chans_of(data: Any) -> int:
    """Find the number of channels: ``in_chans``, else that of the first image.

    Raises:
        UserError: If there is no such image.
    """
    count = getattr(data, "in_chans", None)
    return int(_first_image(data).shape[-3] if count is None else count)


def class_weights_of(data: Any) -> list[float] | None:
    """Find the weight of each class in the loss: ``class_weights``; None if there are none."""
    weights = getattr(data, "class_weights", None)
    return None if weights is None else [float(each) for each in weights]


def mean_std_of(data: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Find mean and standard deviation by channel for pixels in [0, 1]: ``mean`` and ``std``; None if unknown."""
    mean, std = (getattr(data, name, None) for name in ("mean", "std"))
    if mean is None or std is None:
        return None
    return tuple(map(float, mean)), tuple(map(float, std))


def spread_images(loader: Any, count: int) -> tuple[Float[Tensor, "B channels height width"], Int64[Tensor, " B"]]:
    """Read images from all over a loader's data set, the same ones at every call; the random state is left as it is.

    Of a stream, the first ones are read.

    Args:
        loader: A ``DataLoader``, or anything that yields batches of images and labels.
        count: Number of images, at most.

    Raises:
        UserError: If the loader yields something else, or nothing.
    """
    loader = _single(loader)
    dataset: Any = getattr(loader, "dataset", None)
    collate = getattr(loader, "collate_fn", None)
    with isolate_rng(include_cuda=False):
        torch.manual_seed(0)  # of a data set with random transforms
        if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and collate is not None:
            total = len(dataset)
            chosen = [index * total // min(count, total) for index in range(min(count, total))]
            batches = [_checked(collate([dataset[index] for index in chosen]))] if chosen else []
        else:
            batches, found = [], 0
            for batch in loader:
                batches.append(_checked(batch))
                found += len(batches[-1][1])
                if found >= count:
                    break
    if not batches:
        raise UserError(f"the loader of {type(dataset).__name__} has no images")
    images, labels = (torch.cat(parts)[:count].cpu() for parts in zip(*batches, strict=True))
    return images, labels


def _checked(batch: Any) -> tuple[Tensor, Tensor]:
    """Return images and labels of a batch.

    Raises:
        UserError: If it is of another kind.
    """
    if not isinstance(batch, list | tuple) or len(batch) < 2 or not all(isinstance(each, Tensor) for each in batch[:2]):
        kind = f"with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise UserError(f"{BATCH}; got a {type(batch).__name__} {kind}".rstrip())
    images, labels = batch[:2]
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"{BATCH}; got images {images.dtype} {tuple(images.shape)}")
    if labels.is_floating_point():  # fractions of classes, as of mixed images
        labels = labels.argmax(dim=-1)
    return images, labels.long()


def _first_image(data: Any) -> Tensor:
    loaders = (_loader(data, stage) for stage in ("train", "val"))
    found = next((loader for loader in loaders if loader is not None), None)
    if found is None:
        raise UserError(
            f"{type(data).__name__} has neither train_dataloader nor val_dataloader, nor img_size, in_chans"
        )
    return spread_images(found, 1)[0][0]


def _loader(data: Any, stage: str) -> Any:
    """Return the loader of a stage, from a data module that is set up if no Trainer did; None if there is none."""
    if data is None:
        return None
    make = getattr(data, f"{stage}_dataloader", None)
    if make is None:
        return _single(data) if hasattr(data, "__iter__") and stage == "train" else None
    if getattr(data, "trainer", None) is None and data not in _SET_UP:
        for name, arguments in (("prepare_data", ()), ("setup", ("fit",))):
            if hook := getattr(data, name, None):
                hook(*arguments)
        _SET_UP.add(data)
    return _single(make())


def _single(loaders: Any) -> Any:
    """Return the first of several loaders."""
    while isinstance(loaders, list | tuple | Mapping) and loaders:
        loaders = next(iter(loaders.values() if isinstance(loaders, Mapping) else loaders))
    return loaders
