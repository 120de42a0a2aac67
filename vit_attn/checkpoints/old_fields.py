"""Translation of the fields that earlier versions wrote into checkpoints and exports."""

from collections.abc import Mapping
from typing import Any

from vit_attn.checkpoints.contents import is_size

STATE = {"class_names": "label_names", "img_size": "input_size", "crop": "crop_pct"}
"""Names in the state of the data module, before and now."""
METADATA = {"class_names": "label_names", "img_size": "input_size", "options": "model_args"}
"""Names in the header of an export, before and now."""
OLD_BITS = 16
"""Bit depth by which networks were trained whose files do not name one."""


def renamed_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the state of the data module to today's names.

    >>> renamed_state({"class_names": ["cat"], "img_size": [8, 8], "mean": [0.5], "std": [0.2]})["input_size"]
    [1, 8, 8]
    """
    return _renamed(state, STATE, {"crop_pct": 1.0, "bits": OLD_BITS})


def renamed_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the fields in the header of an export to today's names."""
    return _renamed(metadata, METADATA, {"dataset": "", "bits": OLD_BITS})


def _renamed(stored: Mapping[str, Any], names: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    if "class_names" not in stored or any(new in stored for new in names.values()):
        return dict(stored)  # today's; a mixture is refused for its unknown fields
    found = {**defaults, **{names.get(name, name): value for name, value in stored.items()}}
    mean, size = found.get("mean"), found.get("input_size")
    if isinstance(mean, list | tuple) and isinstance(size, list | tuple) and is_size(size):
        found["input_size"] = [len(mean), *size]
    return found
