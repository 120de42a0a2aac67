"""Model card: architecture, classes and preprocessing of a trained network, in timm's terms."""

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vit_attn.checkpoints import old_fields
from vit_attn.checkpoints.contents import is_count, is_size
from vit_attn.errors import UserError

DATA_KEY = "ImageData"
"""Key under which Lightning stores the state of the data module in a checkpoint."""
DATA_ARGS = ("num_classes", "img_size", "in_chans")
"""Model arguments that follow from the data set."""
BITS = (8, 10, 12, 14, 16)
"""Bit depths of grey images from cameras and scanners."""


@dataclass(frozen=True)
class ModelCard:
    """Description of a trained network: all that is needed to use its weights.

    Fields are named as in timm's ``config.json`` and ``pretrained_cfg``; ``dataset`` and ``bits`` are ours.

    Args:
        architecture: Name in timm's registry; empty where only the data are known.
        model_args: Arguments with which ``timm.create_model`` builds the network.
        label_names: Class names by index; None if unknown.
        input_size: Channels, height and width of the images, the latter two in pixels.
        mean: Mean of the training images by channel, for pixels in [0, 1]; empty if unknown.
        std: Standard deviation of the training images by channel; empty if unknown.
        crop_pct: Fraction of height and width that the centre crop keeps, in (0, 1].
        dataset: Name of the training data set, as ``ImageData`` takes it; empty if unknown.
        bits: Bit depth of grey training images with more than 8 bits; None if there were none.
        parts: Modules of the user's own that the network needs, each with what is used of it.
    """

    architecture: str
    model_args: dict[str, Any]
    label_names: tuple[str, ...] | None
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    dataset: str = ""
    bits: int | None = None
    parts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.input_size[0]

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.input_size[1], self.input_size[2]

    def data_state(self) -> dict[str, Any]:
        """Return the fields that describe the data as plain lists and numbers, for the data module's state."""
        values = {name: getattr(self, name) for name in STATE_FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def metadata(self) -> dict[str, str]:
        """Return all fields as JSON, for the header of a ``.safetensors`` file."""
        stored = {name: value for name, value in asdict(self).items() if name != "parts" or value}
        return {name: json.dumps(value) for name, value in stored.items()} | {"format": "pt"}


FIELDS = tuple(each.name for each in fields(ModelCard))
STATE_FIELDS = tuple(name for name in FIELDS if name not in ("architecture", "model_args", "parts"))
"""Fields that the data module knows."""


def card_from_state(checkpoint: Mapping[str, Any], path: str | Path = "the checkpoint") -> ModelCard | None:
    """Read a model card without a network from the state of the data module in a checkpoint.

    Args:
        checkpoint: Content of the file.
        path: The file, for messages.

    Returns:
        The card; None if the checkpoint has no such state.

    Raises:
        UserError: If a field is missing, unknown or invalid.

    >>> card = ModelCard("", {}, ("cat", "dog"), (1, 32, 32), (0.5,), (0.2,), dataset="pets")
    >>> card_from_state({DATA_KEY: card.data_state()}) == card
    True
    """
    state, where = checkpoint.get(DATA_KEY), f"{path}: {DATA_KEY}"
    if not isinstance(state, Mapping) or not {"label_names", "class_names"} & state.keys():
        return None
    found = _with_tuples(old_fields.renamed_state(state))
    if wrong := sorted(found.keys() ^ set(STATE_FIELDS)):
        raise UserError(f"{where} must have {', '.join(sorted(STATE_FIELDS))}; missing or unknown: {', '.join(wrong)}")
    _check_data(found, where)
    if found["label_names"] is None:
        raise UserError(f"{where}.label_names must be names, got None")
    return ModelCard(architecture="", model_args={}, **found)


def card_from_metadata(metadata: Mapping[str, str], path: str | Path) -> ModelCard | None:
    """Read the model card in the header of a ``.safetensors`` file of ``vit-attn export``.

    Args:
        metadata: Header of the file.
        path: The file, for messages.

    Returns:
        The card; None if another program wrote the file.

    Raises:
        UserError: If a field is invalid.
    """
    try:
        stored = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
    except ValueError:
        return None
    found, where = _with_tuples(old_fields.renamed_metadata(stored)), f"{path}: its header"
    if found.keys() | {"parts"} != set(FIELDS):
        return None
    _check_data(found, where)
    if not (isinstance(found["architecture"], str) and isinstance(found["model_args"], dict)):
        raise UserError(f"{where} is corrupt: architecture or model_args is of another type")
    model_args: dict[str, Any] = found["model_args"]
    size = model_args.get("img_size")
    if size is not None and is_size(size):
        found["model_args"] = model_args | {"img_size": tuple(size)}
    return ModelCard(**found)


def check_bits(bits: Any, where: str) -> None:
    """Refuse a bit depth that no image has.

    Raises:
        UserError: If it is not one of ``BITS`` or None.
    """
    if bits is not None and (isinstance(bits, bool) or bits not in BITS):
        raise UserError(f"{where}.bits must be one of {', '.join(map(str, BITS))}, or none, got {bits!r:.80}")


def check_mean_std(mean: Any, std: Any, where: str) -> None:
    """Refuse a mean and standard deviation by which images cannot be normalised.

    Args:
        mean: Mean by channel.
        std: Standard deviation by channel.
        where: File and field, for messages.

    Raises:
        UserError: If one is no tuple of finite numbers, if their lengths differ, or if a standard deviation is not
            above 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if not (isinstance(values, tuple) and values and all(map(_is_finite, values))):
            raise UserError(f"{where}.{name} must be finite numbers, one a channel, got {values!r:.200}")
    if len(mean) != len(std):
        raise UserError(f"{where} has a mean of {len(mean)} channels and a standard deviation (std) of {len(std)}")
    if min(std) <= 0:
        raise UserError(f"{where}.std must be above 0, since images are divided by it, got {list(std)}")


def _check_data(found: Mapping[str, Any], where: str) -> None:
    """Refuse invalid fields that describe the data."""
    check_mean_std(found["mean"], found["std"], where)
    names, crop, size = found["label_names"], found["crop_pct"], found["input_size"]
    if names is not None and not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{where}.label_names must be names, got {names!r:.80}")
    if not (_is_finite(crop) and 0 < crop <= 1):
        raise UserError(f"{where}.crop_pct must be in (0, 1], got {crop!r:.80}")
    check_bits(found["bits"], where)
    if not isinstance(found["dataset"], str):
        raise UserError(f"{where}.dataset must be a name, got {found['dataset']!r:.80}")
    if not (isinstance(size, tuple) and len(size) == 3 and all(map(is_count, size))):
        raise UserError(f"{where}.input_size must be channels, and height and width in pixels, got {size!r:.80}")
    if size[0] != len(found["mean"]):
        raise UserError(f"{where} has an input_size of {size[0]} channels and a mean of {len(found['mean'])}")


def _with_tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
