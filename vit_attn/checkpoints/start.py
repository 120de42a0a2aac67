"""Which network a run starts with: the one that is asked for, or the one that its weights are of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_attn.checkpoints.header import MADE_FOR, find_header
from vit_attn.checkpoints.stored_network import check_network
from vit_attn.errors import UserError
from vit_attn.model.pretrained import names_network

DEFAULT = "vit_attn_tiny_patch4_32"
"""The network where neither the user nor the weights name one."""


def network_to_start_with(
    arch: str | None, options: Mapping[str, Any] | None, weights: str | None
) -> tuple[str, dict[str, Any]]:
    """The network's name in timm's registry, and its options.

    Args:
        arch: The name that is asked for, if one is.
        options: Options that are asked for; they are put over those of the weights.
        weights: A file, an address or a name of weights; None for random ones.

    Raises:
        UserError: If the weights are of another network than that, or if they do not say of which and nobody does.
    """
    asked = dict(options or {})
    if weights is None:
        return arch or DEFAULT, asked
    if names_network(weights):
        return arch or weights.partition(".")[0], asked
    if said := find_header(weights):
        check_network(Path(weights), said.architecture, said.options)
        if arch not in (None, said.architecture):
            raise UserError(f"{weights} is of the network {said.architecture}, not of {arch}: leave out model.arch")
        return said.architecture, own_options(said.options) | asked
    if arch is None and (Path(weights).is_file() or weights.startswith(("https://", "http://"))):
        raise UserError(
            f"{weights} does not say which network it is of: name that, with model.arch and model.arch_options "
            "(judge: --arch, --arch_options)"
        )
    return arch or DEFAULT, asked


def own_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a network without what it has from its data, and without where its weights came from."""
    return {name: value for name, value in (options or {}).items() if name not in (*MADE_FOR, "pretrained")}
