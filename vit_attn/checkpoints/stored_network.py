"""What a file says of its network, checked before that network is built: the file may be somebody else's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.errors import UserError, one_line

MOST = {"img_size": 4096, "in_chans": 64, "num_classes": 100_000, "depth": 256}
"""Largest values of what a network is built for; a file that claims more would fill the memory with nothing."""
MOST_OTHER = 65_536
"""Largest number among the other options."""
FOREIGN = frozenset(
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
"""Options with which ``timm.create_model`` reads or downloads other files."""


def check_network(path: Path, arch: Any, options: Any) -> None:
    """Refuse what a file says of its network if building it could do more than that.

    Args:
        path: The file.
        arch: Name of the network.
        options: With which it is made.

    Raises:
        UserError: If the name is not of timm's registry, or an option is no number or word within bounds, or would read
            other files.
    """
    if not isinstance(arch, str) or ":" in arch or "/" in arch or not timm.is_model(arch.partition(".")[0]):
        raise UserError(f"{path}: its network {one_line(repr(arch))[:80]} is not in timm's registry")
    if not isinstance(options, Mapping):
        raise UserError(f"{path}: the options of its network are no mapping")
    for name, value in options.items():
        if name in FOREIGN or not _is_within(value, MOST.get(name, MOST_OTHER)):
            raise UserError(
                f"{path}: its network has an option that is not taken, {one_line(f'{name}={value!r}')[:80]}"
            )


def check_hyperparameters(path: Path, stored: Any) -> None:
    """The same for what a checkpoint of ours keeps of its network.

    Args:
        path: The checkpoint.
        stored: Its ``hyper_parameters``.

    Raises:
        UserError: If so.
    """
    if not isinstance(stored, Mapping) or "_class_path" in stored or stored.get("weights") is not None:
        raise UserError(f"{path} does not keep its network as a checkpoint of vit-attn does")
    made_for = {name: stored.get(name) for name in ("num_classes", "img_size", "in_chans")}
    for name, value in made_for.items():
        least = min(value, default=0) if isinstance(value, list | tuple) else value
        if type(least) is not int or least < 1:
            raise UserError(
                f"{path}: its network has an option that is not taken, {one_line(f'{name}={value!r}')[:80]}"
            )
    check_network(path, stored.get("arch"), {**_options(stored), **made_for})


def _options(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    options = stored.get("arch_options") or {}
    return options if isinstance(options, Mapping) else {"arch_options": options}


def _is_within(value: Any, most: int) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 1000 and all(
            _is_within(each, most) and not isinstance(each, list | tuple) for each in value
        )
    if isinstance(value, str):
        return len(value) <= 200
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= most)
