"""Fit of a classifier to its data: sizes, classes and normalisation, on the command line and outside of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from vit_attn.checkpoints.finetune import DEFAULT_SIZES, Start, StartedTask, apply_to_task
from vit_attn.checkpoints.io import find_card
from vit_attn.checkpoints.model_card import DATA_ARGS, ModelCard
from vit_attn.errors import UserError
from vit_attn.training.data_members import class_names_of, mean_std_of, names_of_classes

ALIKE = 1e-3
"""Difference of means and standard deviations, of pixels in [0, 1], that is no other normalisation."""


@runtime_checkable
class NormalizedData(Protocol):
    """A data module that takes the normalisation of weights, unless the user has chosen another."""

    @property
    def normalized_by(self) -> str | None:
        """Source of mean and standard deviation that the user chose; None if none was."""
        ...

    def normalize_as(self, card: ModelCard) -> None:
        """Normalise as a network was trained."""
        ...


def network_sizes(
    start: Start, num_classes: int | None, img_size: Sequence[int] | int | None, in_chans: int | None
) -> tuple[int, tuple[int, int], int]:
    """Return the sizes of a network: those that are given, else those of its weights, else 10 classes of CIFAR's size.

    Args:
        start: Network and weights.
        num_classes: Number of classes.
        img_size: Height and width of the images in pixels, or one number for a square.
        in_chans: Channels of the images.

    Raises:
        UserError: If the size is none.
    """
    card, given = start.card, dict(zip(DATA_ARGS, (num_classes, img_size, in_chans), strict=True))
    of_weights: dict[str, Any] = {}
    if card is not None and card.input_size:
        names = card.label_names
        of_weights = {"img_size": card.img_size, "in_chans": card.in_chans, "num_classes": len(names or ()) or None}
        of_weights |= {name: card.model_args[name] for name in DATA_ARGS if name in card.model_args}
    found: list[Any] = [
        next(value for value in (given[name], of_weights.get(name), DEFAULT_SIZES[name]) if value is not None)
        for name in DATA_ARGS
    ]
    sides = [found[1], found[1]] if isinstance(found[1], int) else list(found[1])
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"img_size must be a side in pixels, or height and width as (160, 224), got {img_size}")
    return found[0], (sides[0], sides[1]), found[2]


def fit_to_data(task: StartedTask, sizes: Mapping[str, Any], data: Any) -> None:
    """Compare a network that is about to train with its data; adopt the normalisation of its weights, and the classes.

    Args:
        task: A ``Classifier`` that is not trained yet.
        sizes: Its ``num_classes``, ``img_size`` and ``in_chans``.
        data: The data module, which need not be set up; or None.

    Raises:
        UserError: If it has another number of classes, or other images.
    """
    if data is None:
        return
    for name in DATA_ARGS:
        found = getattr(data, name, None)
        if found is None:
            continue
        found = (found, found) if name == "img_size" and isinstance(found, int) else found
        found = tuple(found) if isinstance(found, Sequence) else found
        if found != sizes[name]:
            raise UserError(
                f"{name} is {found} in the data and {sizes[name]} in the network: build it for the data, "
                f"Classifier({', '.join(f'{each}=data.{each}' for each in DATA_ARGS)})"
            )
    if task.start is None:
        return
    card, chosen = find_card(task.start), "" if mean_std_of(data) else None
    if isinstance(data, NormalizedData):
        chosen = data.normalized_by
        if chosen is None and card is not None and card.mean:
            data.normalize_as(card)
            rank_zero_info(f"set by {task.start}: the normalisation of the images")
            chosen = task.start
    elif card is not None and card.mean:
        _warn_of_other_statistics(task.start, card, data)
    apply_to_task(task, tuple(getattr(data, "class_names", None) or ()), chosen)


def _warn_of_other_statistics(start: str, card: ModelCard, data: Any) -> None:
    known = mean_std_of(data)
    if known is None:
        return
    ours, theirs = [*known[0], *known[1]], [*card.mean, *card.std]
    if len(ours) != len(theirs) or max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > ALIKE:
        rank_zero_warn(
            f"{start} was trained on images of mean {card.mean} and standard deviation {card.std}, and these data are "
            f"normalised by {known[0]} and {known[1]}"
        )


def describe_data(data: Any, net: nn.Module, sizes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Describe data of one's own for the checkpoint, as ``ImageData`` describes itself; None without mean and std.

    Args:
        data: The data module, set up; or None.
        net: The network that trains on it.
        sizes: Its ``num_classes``, ``img_size`` and ``in_chans``.
    """
    known = mean_std_of(data)
    if known is None or len(known[0]) != sizes["in_chans"]:
        return None
    name = getattr(data, "dataset", None)
    card = ModelCard(
        architecture=type(net).__name__,
        model_args={},
        label_names=tuple(names_of_classes(class_names_of(data) or (), sizes["num_classes"])),
        input_size=(sizes["in_chans"], *sizes["img_size"]),
        mean=known[0],
        std=known[1],
        dataset=name if isinstance(name, str) else "",
    )
    return card.data_state()
