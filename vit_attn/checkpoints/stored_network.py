"""Limits on the network that a file describes, checked before it is built: the file may come from anyone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.errors import UserError, one_line

LIMITS = {"img_size": 4096, "in_chans": 64, "num_classes": 100_000, "depth": 256}
"""Largest value of each size; beyond these a file could fill the memory with an empty network."""
OTHER_LIMIT = 65_536
"""Largest number among the other model arguments."""
REFUSED = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "scriptable",
        "exportable",
    }
)
"""Arguments by which ``timm.create_model`` reads or downloads other files."""


def check_network(path: str | Path, architecture: Any, model_args: Any) -> None:
    """Refuse an architecture or model arguments that could do more than build a network of ordinary size.

    Args:
        path: The file, for messages.
        architecture: Name in timm's registry.
        model_args: Arguments with which it is built.

    Raises:
        UserError: If the name is not in timm's registry, or if an argument is no number, word or flat list within the
            limits, or reads other files.
    """
    known = isinstance(architecture, str) and not {":", "/"} & set(architecture)
    if not (known and timm.is_model(architecture.partition(".")[0])):
        raise UserError(f"{path}: its network {one_line(repr(architecture))[:80]} is not in timm's registry")
    if not isinstance(model_args, Mapping):
        raise UserError(f"{path}: the options of its network are no mapping")
    for name, value in model_args.items():
        if name in REFUSED or not _is_within(value, LIMITS.get(name, OTHER_LIMIT)):
            raise _refused(path, name, value)


def check_hyperparameters(path: str | Path, stored: Any) -> None:
    """Refuse hyperparameters of a checkpoint for the same reasons.

    Args:
        path: The checkpoint, for messages.
        stored: Its ``hyper_parameters``.

    Raises:
        UserError: If :func:`check_network` refuses the network, or if they name a class or other weights.
    """
    if not isinstance(stored, Mapping) or "_class_path" in stored or stored.get("weights") is not None:
        raise UserError(f"{path} does not describe its network as a checkpoint of vit-attn does")
    data_args = {name: stored.get(name) for name in ("num_classes", "img_size", "in_chans")}
    for name, value in data_args.items():
        least = min(value, default=0) if isinstance(value, list | tuple) else value
        if type(least) is not int or least < 1:
            raise _refused(path, name, value)
    options = stored.get("arch_options") or {}
    options = options if isinstance(options, Mapping) else {"arch_options": options}
    check_network(path, stored.get("arch"), {**options, **data_args})


def _refused(path: str | Path, name: Any, value: Any) -> UserError:
    return UserError(f"{path}: its network has an option that is not allowed, {one_line(f'{name}={value!r}')[:80]}")


def _is_within(value: Any, limit: int) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 1000 and all(
            _is_within(each, limit) and not isinstance(each, list | tuple) for each in value
        )
    if isinstance(value, str):
        return len(value) <= 200
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= limit)
