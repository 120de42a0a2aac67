"""Predictions and attention of a trained network for what a Python session has: files, PIL images, arrays, tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from vit_attn.errors import UserError, did_you_mean
from vit_attn.inference.attend import ImageAttention, MapSettings, attend_batch
from vit_attn.inference.given_pictures import given_pictures, is_several, one_by_one
from vit_attn.inference.network import TrainedNetwork, network_for_fit
from vit_attn.reports.prediction_table import NOT_FINITE

BATCH = 32
"""Images that go through the network at once."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Args:
        label: Name of the predicted class.
        probability: Its probability.
        index: Its index.
        probabilities: Probability of each class by its name, the most probable first.
    """

    label: str
    probability: float
    index: int
    probabilities: dict[str, float] = field(repr=False)


def predict(network: TrainedNetwork, given: Any, fit: str = "auto") -> Prediction | list[Prediction]:
    """Predict the classes of images, as :meth:`TrainedNetwork.predict` says."""

    def answers(batch: Tensor) -> list[Prediction]:
        try:
            with torch.inference_mode():
                rows = network.net(batch).float().softmax(dim=-1)
        except (AssertionError, RuntimeError, ValueError) as error:
            if tuple(batch.shape[1:]) == network.card.input_size:
                raise
            height, width = network.card.img_size
            raise UserError(
                f"a tensor goes into the network as it is, and {tuple(batch.shape[1:])} does not fit its images of "
                f"{height}x{width} pixels: resize it, or give a file or a PIL image, which is resized"
            ) from error
        if not rows.isfinite().all():
            raise UserError(NOT_FINITE)
        return [_prediction(row.cpu(), network.unique_class_names) for row in rows]

    return _ask(network_for_fit(network, fit), given, fit, answers)


def attention(
    network: TrainedNetwork, given: Any, query: str | int | None, target: str | int | None, fit: str = "auto"
) -> ImageAttention | list[ImageAttention]:
    """Compute the attention of images, as :meth:`TrainedNetwork.attention` says."""
    wanted = None if query is None else str(query)
    settings = MapSettings(wanted, None if target is None else find_class(network.unique_class_names, target))

    def answers(batch: Tensor) -> list[ImageAttention]:
        found = attend_batch(batch, network, settings)
        if problems := [each for each in found if isinstance(each, str)]:
            raise UserError(problems[0])
        return [each for each in found if not isinstance(each, str)]

    return _ask(network_for_fit(network, fit), given, fit, answers)


def find_class(names: Sequence[str], target: int | str) -> int:
    """Find the index of a class by its name or index.

    Raises:
        UserError: If there is none, with similar names.
    """
    if isinstance(target, str):
        if target not in names:
            raise UserError(f"the network knows no class {target!r}{did_you_mean(target, names)}")
        return list(names).index(target)
    if isinstance(target, bool) or not 0 <= target < len(names):
        raise UserError(f"the target must be a class in 0..{len(names) - 1}, got [{target}]")
    return target


def class_by_name_or_index(network: TrainedNetwork, target: str) -> int:
    """Find the class that a person typed: a name of the network's classes first, else an index.

    Args:
        network: The network.
        target: Name or index.

    Raises:
        UserError: If there is none, with similar names.
    """
    names = network.unique_class_names
    return find_class(names, int(target) if target not in names and target.lstrip("-").isdecimal() else target)


def _prediction(row: Tensor, names: Sequence[str]) -> Prediction:
    order = row.argsort(descending=True, stable=True).tolist()
    probabilities = {names[index]: float(row[index]) for index in order}
    return Prediction(names[order[0]], float(row[order[0]]), order[0], probabilities)


def _ask(
    network: TrainedNetwork, given: Any, fit: str, answers: Callable[[Tensor], Sequence[Answer]]
) -> Answer | list[Answer]:
    """Answer for each image, in batches of one shape; one answer for one image, else a list."""
    images = [given_pictures(network, item, fit).normalized[0] for item in one_by_one(given)]
    if not images:
        return []
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(index)
    found: dict[int, Answer] = {}
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            chosen = group[start : start + BATCH]
            found |= zip(chosen, answers(torch.stack([images[index] for index in chosen])), strict=True)
    return [found[index] for index in range(len(images))] if is_several(given) else found[0]
