"""Most confident wrong predictions of a test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vit_attn.callbacks.pixels import pictures_of, pixels_of
from vit_attn.data_protocol import ProbeData
from vit_attn.plotting.gallery import draw_gallery
from vit_attn.plotting.scale import Picture

SHOWN = 12
"""Errors that are kept."""


@dataclass(frozen=True)
class Errors:
    """Wrong predictions.

    Args:
        probabilities: Probability of the predicted class; negative where there is no error.
        images: Pixels.
        labels: True classes.
        predicted: Predicted classes.
        numbers: Numbers of the images, from 1, in the order of the test on this device.
    """

    probabilities: Float[Tensor, " K"]
    images: UInt8[Tensor, "K C height width"]
    labels: Int64[Tensor, " K"]
    predicted: Int64[Tensor, " K"]
    numbers: Int64[Tensor, " K"]

    def worst(self, others: "Errors | None") -> "Errors":
        """Return the most confident of these and others, at most ``SHOWN``."""
        joined = list(vars(self).values())
        if others is not None:
            joined = [torch.cat([other, mine]) for other, mine in zip(vars(others).values(), joined, strict=True)]
        order = joined[0].argsort(descending=True, stable=True)[:SHOWN]
        return Errors(*(each[order] for each in joined))


class WorstErrors:
    """Collects the most confident errors of a test, batch by batch, on the device.

    Args:
        data: Data module that normalised the images.
    """

    def __init__(self, data: ProbeData) -> None:
        self.data, self.count = data, 0
        self.errors: Errors | None = None

    def update(
        self,
        images: Float[Tensor, "B C height width"],
        logits: Float[Tensor, "B classes"],
        labels: Int64[Tensor, " B"],
    ) -> None:
        """Add a batch."""
        probabilities, predicted = logits.float().softmax(dim=-1).max(dim=-1)
        wrong = torch.where(predicted == labels, -1.0, probabilities)
        order = wrong.argsort(descending=True, stable=True)[:SHOWN]
        numbers = order + self.count + 1
        self.count += len(labels)
        found = Errors(wrong[order], pixels_of(images[order], self.data), labels[order], predicted[order], numbers)
        self.errors = found.worst(self.errors)

    def gather(self, task: Any) -> None:
        """Take together what all devices found; each must call it."""
        if self.errors is None or task.trainer.world_size == 1:
            return
        missing = SHOWN - len(self.errors.labels)  # of a device with few images: all must send as many
        padded = [torch.cat([each, each.new_zeros(missing, *each.shape[1:])]) for each in vars(self.errors).values()]
        padded[0][SHOWN - missing :] = -1.0
        gathered = [each.flatten(0, 1) for each in task.all_gather(padded)]
        order = gathered[0].argsort(descending=True, stable=True)[:SHOWN]
        self.errors = Errors(*(each[order] for each in gathered))

    def draw(self, class_names: Sequence[str], heading: str, numbered: bool) -> Picture | None:
        """Draw the errors, the most confident first; None without errors.

        Args:
            class_names: Names of the classes.
            heading: Text above the images.
            numbered: Whether the images have numbers, which is so on one device.
        """
        if self.errors is None or not (kept := self.errors.probabilities >= 0).any():
            return None
        errors = Errors(*(each[kept].cpu() for each in vars(self.errors).values()))
        captions = []
        for i, probability in enumerate(errors.probabilities.tolist()):
            number = f"image {int(errors.numbers[i]):,}\n" if numbered else ""
            label, predicted = (class_names[int(each[i])] for each in (errors.labels, errors.predicted))
            captions.append(f"{number}label: {label}\nprediction: {predicted}, {probability:.0%}")
        return draw_gallery(pictures_of(errors.images), captions, f"{heading}\nmost confident wrong predictions")
