"""What must be known of a data set to use a network that was trained on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEY = "ImageData"
"""Under which lightning keeps the state of the data in a checkpoint."""


@dataclass(frozen=True)
class Card:
    """Kept in each checkpoint, so that a network names classes and takes images wherever its file goes.

    Args:
        dataset: Its name, as ``ImageData`` takes it.
        class_names: Names of the classes by index.
        img_size: Height and width of the images in pixels.
        mean: Mean by channel of the pixels in [0, 1], which normalisation takes off.
        std: Deviation by channel, by which it divides.
        crop: Share of height and width that is kept around the centre of an image.
    """

    dataset: str
    class_names: tuple[str, ...]
    img_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0

    def state(self) -> dict[str, Any]:
        """As plain lists and numbers, which a checkpoint may hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def card_of(checkpoint: Mapping[str, Any]) -> Card | None:
    """The card in a checkpoint of ours, if it has one.

    >>> card = Card("pets", ("cat", "dog"), (32, 32), (0.5,), (0.2,))
    >>> card_of({KEY: card.state()}) == card
    True
    """
    state = checkpoint.get(KEY)
    if not isinstance(state, Mapping) or "class_names" not in state:
        return None
    fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    return Card(**fields)
