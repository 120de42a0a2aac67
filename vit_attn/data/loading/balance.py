"""Remedies for class imbalance: class weights in the loss, and class-balanced sampling."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from vit_attn.data.loading.sampler import RandomOrder


def inverse_frequencies(labels: Int64[Tensor, " images"], num_classes: int) -> list[float]:
    """Class weights for the loss: inverse class frequencies, with mean 1 over the classes that have images.

    >>> inverse_frequencies(torch.tensor([0, 0, 0, 1]), 3)
    [0.5, 1.5, 0.0]
    """
    counts = labels.bincount(minlength=num_classes)
    inverse = torch.where(counts > 0, 1 / counts.clamp(min=1).double(), 0)
    return (inverse / inverse[counts > 0].mean()).tolist()


def describe_imbalance(labels: Int64[Tensor, " images"], class_names: Sequence[str]) -> str:
    """Describe the class imbalance by the largest and the smallest class.

    >>> describe_imbalance(torch.tensor([0, 0, 0, 1]), ["cat", "dog"])
    "'cat' has 3 training images, 'dog' has 1"
    """
    counts = labels.bincount(minlength=len(class_names))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] == counts[least]:
        return f"each class has {counts[most]} training images"
    return f"{class_names[most]!r} has {counts[most]} training images, {class_names[least]!r} has {counts[least]}"


def balanced_order(labels: Int64[Tensor, " images"]) -> RandomOrder:
    """Sampling with replacement in which all classes are equally likely: images are weighted by inverse frequency.

    An epoch has as many images as without it, so those of a small class come several times.
    """
    weights = 1 / labels.bincount().double()[labels]
    return lambda generator: torch.multinomial(weights, len(labels), replacement=True, generator=generator)
