"""Mistakes in batches of one's own, as one sentence instead of what a layer or the loss says of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from vit_attn.errors import UserError
from vit_attn.training.data_members import BATCH

PIXELS = 100
"""Smallest value that no image has that was normalised by a mean and standard deviation of pixels in [0, 1]."""
FAILURES = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)
"""Errors of layers, losses and unpacking that a wrong batch brings about."""


def check_first_batch(batch: Any, num_classes: int) -> None:
    """Refuse a batch that is no images and labels of the network's classes; warn of pixels without normalisation.

    Labels are read on the host, since a GPU ends the process for a wrong one, without its number: for one batch a
    run, which is worth the wait.

    Args:
        batch: What a loader yielded, on the device.
        num_classes: Number of classes.

    Raises:
        UserError: If it is something else.
    """
    if problem := _pair_problem(batch):
        raise UserError(problem)
    images, labels = batch
    if problem := _label_problem(labels.cpu(), num_classes):
        raise UserError(problem)
    if images.is_floating_point() and images.device.type == "cpu" and images.numel():
        largest = images.max().item()
        if largest >= PIXELS:
            rank_zero_warn(
                f"images have values up to {largest:.0f}: the network takes normalised ones, about -3 to 3; divide "
                "pixels by 255, subtract the mean and divide by the standard deviation"
            )


@contextmanager
def explaining(batch: Any, sizes: Mapping[str, Any]) -> Iterator[None]:
    """Explain an error inside the ``with`` block by the batch, if that is wrong; else the error is left as it is.

    Args:
        batch: Images and labels.
        sizes: ``num_classes``, ``img_size`` and ``in_chans`` of the network.

    Raises:
        UserError: If the batch is not what the network takes.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except FAILURES as error:
        if problem := batch_problem(batch, sizes):
            raise UserError(problem) from error
        raise


def check_images(images: Any) -> None:
    """Refuse pixels that were not normalised, which a network would take for huge values.

    Args:
        images: Images of a batch.

    Raises:
        UserError: If they are whole numbers.
    """
    if isinstance(images, Tensor) and not images.is_floating_point():
        raise UserError(
            f"{BATCH}; got images {images.dtype}: divide pixels by 255 and normalise them, as "
            "torchvision's ToTensor and Normalize do"
        )


def batch_problem(batch: Any, sizes: Mapping[str, Any]) -> str | None:
    """Find out what is wrong with a batch; None if it is what the network takes.

    Args:
        batch: Images and labels.
        sizes: ``num_classes``, ``img_size`` and ``in_chans`` of the network.
    """
    if problem := _pair_problem(batch):
        return problem
    images, labels = batch
    height, width = sizes["img_size"]
    channels, num_classes = sizes["in_chans"], sizes["num_classes"]
    shape = tuple(images.shape)
    if images.ndim != 4:
        return f"{BATCH}; got images {shape}"
    if shape[1] != channels:
        hint = ": channels come before height and width, images.permute(0, 3, 1, 2)" if shape[3] == channels else ""
        count = f"{shape[1]} channel{'' if shape[1] == 1 else 's'}"
        return (
            f"images of shape {shape} have {count}, and the network takes {channels}"
            f"{hint or f': convert them, or build Classifier(in_chans={shape[1]})'}"
        )
    if labels.ndim not in (1, 2) or len(labels) != len(images):
        return f"{BATCH}; got labels {tuple(labels.shape)} for images {shape}"
    if problem := _label_problem(labels, num_classes):
        return problem
    if shape[2:] != (height, width):
        return (
            f"images are {shape[2]}x{shape[3]} pixels, and the network takes {height}x{width}: resize them, or build "
            f"Classifier(img_size=({shape[2]}, {shape[3]}))"
        )
    return None


def _pair_problem(batch: Any) -> str | None:
    """Find out why a batch is no pair of tensors; None if it is one."""
    got = f"a {type(batch).__name__}"
    if isinstance(batch, Tensor):
        got = f"a tensor {tuple(batch.shape)} without labels"
    elif isinstance(batch, Mapping):
        got += f" with {', '.join(map(str, batch))}: give its loader a collate_fn that makes the pair"
    elif isinstance(batch, list | tuple):
        if len(batch) == 2 and all(isinstance(each, Tensor) for each in batch):
            return None
        got += f" of {', '.join(type(each).__name__ for each in batch)}"
    return f"{BATCH}; got {got}"


def _label_problem(labels: Tensor, num_classes: int) -> str | None:
    """Find labels that are no class of the network; values are read on the host only, and no device is waited for."""
    if labels.ndim == 2:
        if labels.shape[1] == num_classes:
            return None
        return (
            f"labels are fractions of {labels.shape[1]} classes, and the network has {num_classes}: build "
            f"Classifier(num_classes={labels.shape[1]})"
        )
    if labels.is_floating_point():
        return f"labels are {labels.dtype} {tuple(labels.shape)}: class indices are whole numbers, labels.long()"
    if labels.ndim != 1 or labels.device.type != "cpu" or not labels.numel():
        return None
    least, largest = int(labels.min()), int(labels.max())
    if least < 0:
        return f"label {least} is no class: they count from 0, to {num_classes - 1}"
    if largest >= num_classes:
        return (
            f"label {largest} is no class of the network, whose {num_classes} classes are 0 to {num_classes - 1}: "
            f"count labels from 0, or build Classifier(num_classes={largest + 1}) or more"
        )
    return None
