"""What can be done where classes have unlike numbers of images."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from vit_attn.data.loading.device import Order


def inverse_frequencies(labels: Int64[Tensor, " images"], num_classes: int) -> list[float]:
    """Weight of each class in the loss: its inverse frequency, 1 in the mean over the classes that have images.

    >>> inverse_frequencies(torch.tensor([0, 0, 0, 1]), 3)
    [0.5, 1.5, 0.0]
    """
    counts = labels.bincount(minlength=num_classes)
    inverse = torch.where(counts > 0, 1 / counts.clamp(min=1).double(), 0)
    return (inverse / inverse[counts > 0].mean()).tolist()


def imbalance(labels: Int64[Tensor, " images"], class_names: Sequence[str]) -> str:
    """The largest and the smallest class, in words.

    >>> imbalance(torch.tensor([0, 0, 0, 1]), ["cat", "dog"])
    "of 'cat' there are 3 training images, of 'dog' 1"
    """
    counts = labels.bincount(minlength=len(class_names))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] == counts[least]:
        return f"each class has {counts[most]} training images"
    return (
        f"of {class_names[most]!r} there are {counts[most]} training images, of {class_names[least]!r} {counts[least]}"
    )


def balanced(labels: Int64[Tensor, " images"]) -> Order:
    """An order in which all classes are drawn as often: each image with the inverse frequency of its class.

    As many are drawn as there are images, so that those of a small class come several times an epoch.
    """
    weights = 1 / labels.bincount().double()[labels]
    return lambda generator: torch.multinomial(weights, len(labels), replacement=True, generator=generator)
