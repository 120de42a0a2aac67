"""What must be known of a data set to use a network that was trained on it."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vit_attn.checkpoints.contents import is_size
from vit_attn.errors import UserError

KEY = "ImageData"
"""Under which lightning keeps the state of the data in a checkpoint."""
BITS = (8, 10, 12, 14, 16)
"""Depths of grey that cameras and scanners have."""
BEFORE = 16
"""The depth by which networks were trained whose files do not tell it."""


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
        bits: Those that its grey pictures of more than 8 use; None where it has none.
    """

    dataset: str
    class_names: tuple[str, ...]
    img_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    bits: int | None = None

    def state(self) -> dict[str, Any]:
        """As plain lists and numbers, which a checkpoint may hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def card_of(checkpoint: Mapping[str, Any], path: str | Path = "the checkpoint") -> Card | None:
    """The card in a checkpoint of ours, if it has one.

    Args:
        checkpoint: What the file holds.
        path: The file.

    Raises:
        UserError: If a field is missing or unknown, or if images cannot be normalised by it.

    >>> card = Card("pets", ("cat", "dog"), (32, 32), (0.5,), (0.2,))
    >>> card_of({KEY: card.state()}) == card
    True
    """
    state = checkpoint.get(KEY)
    if not isinstance(state, Mapping) or "class_names" not in state:
        return None
    found: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    wanted = {each.name for each in fields(Card)}
    found.setdefault("bits", BEFORE)
    if other := sorted({*found, "crop"} ^ wanted):
        raise UserError(f"{path}: {KEY} must have {', '.join(sorted(wanted))}; missing or unknown: {', '.join(other)}")
    check_statistics(found["mean"], found["std"], f"{path}: {KEY}")
    names, crop = found["class_names"], found.get("crop", 1.0)
    if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{path}: {KEY}.class_names must be names, got {names!r:.80}")
    if not (_is_finite(crop) and 0 < crop <= 1):
        raise UserError(f"{path}: {KEY}.crop must be in (0, 1], got {crop!r}")
    check_bits(found["bits"], f"{path}: {KEY}")
    if not is_size(found["img_size"]):
        raise UserError(f"{path}: {KEY}.img_size must be height and width in pixels, got {found['img_size']!r}")
    return Card(**found)


def check_bits(bits: Any, what: str) -> None:
    """Refuse a depth that no picture has.

    Raises:
        UserError: If so.
    """
    if bits is not None and (isinstance(bits, bool) or bits not in BITS):
        raise UserError(f"{what}.bits must be one of {', '.join(map(str, BITS))}, or none, got {bits!r:.80}")


def check_statistics(mean: Any, std: Any, what: str) -> None:
    """Refuse statistics by which images cannot be normalised.

    Args:
        mean: Mean by channel.
        std: Deviation by channel.
        what: What they are part of.

    Raises:
        UserError: If one is no list of finite numbers, if they are of unlike lengths, or if a deviation is not above 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if not (isinstance(values, tuple) and values and all(map(_is_finite, values))):
            raise UserError(f"{what}.{name} must be finite numbers, one a channel, got {values!r}")
    if len(mean) != len(std):
        raise UserError(f"{what} has a mean of {len(mean)} channels and a deviation (std) of {len(std)}")
    if min(std) <= 0:
        raise UserError(f"{what}.std must be above 0, since images are divided by it, got {list(std)}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
