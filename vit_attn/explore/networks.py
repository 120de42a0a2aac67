"""Networks of a session: opened by name, frozen, and each with a name of its own on the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vit_attn.checkpoints.paths import weights_file
from vit_attn.errors import UserError, printable, shortened
from vit_attn.inference.network import TrainedNetwork, network_for_fit, open_network

LONGEST_NAME = 80
"""Characters of a network's name that are shown."""


@dataclass(frozen=True)
class LiveNetwork:
    """Network of a session.

    Args:
        name: Name on the page, its own among the session's networks.
        network: The network with its model card, on its device.
        model: Name or path that it was opened by.
        weights: File of weights that it was opened with, or ``none``; None for its own.
        img_size: Side of the images in pixels that it was opened with; None for its own.
    """

    name: str
    network: TrainedNetwork
    model: str
    weights: str | None = None
    img_size: int | None = None


def open_networks(
    models: Sequence[str], weights: str | None, img_size: int | None, device: torch.device, fit: str = "auto"
) -> list[LiveNetwork]:
    """Open networks and move them to a device.

    Args:
        models: Names or paths, as :func:`open_network` takes them.
        weights: File of weights of the only network, or ``none``.
        img_size: Side of the only network's images in pixels.
        device: The device.
        fit: How pictures will become their input, one of ``FITS``.

    Raises:
        UserError: If one cannot be opened or is no vision transformer, or if weights or a size are given for several.
    """
    if len(models) > 1 and (weights is not None or img_size is not None):
        raise UserError(
            f"--weights and --img_size are for one network, got {len(models)} times --model: leave them out"
        )
    found = {model: weights_file(model) for model in models}
    models = [str(path) if (path := found[model]) and path.suffix == ".ckpt" else model for model in models]
    opened = [network_for_fit(open_network(model, weights, img_size, attends=True), fit) for model in models]
    for network in opened:
        network.net.to(device)
    names = unique_names([short_name(model) for model in models])
    return [
        LiveNetwork(name, network, model, weights, img_size)
        for name, network, model in zip(names, opened, models, strict=True)
    ]


def short_name(model: str) -> str:
    """Shorten the path of a checkpoint to its run, and of another file to its name.

    >>> short_name("runs/vit/20261126-1342/checkpoints/best.ckpt"), short_name("vit_tiny_patch16_224.augreg_in21k")
    ('vit/20261126-1342', 'vit_tiny_patch16_224.augreg_in21k')
    """
    path = Path(model)
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        run = path.parent.parent
        name = f"{run.parent.name}/{run.name}" + ("" if path.stem == "best" else f", {path.stem}")
    else:
        name = path.resolve().name if path.exists() else model
    return shortened(printable(name), LONGEST_NAME) or model


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the names that are given more than once.

    >>> unique_names(["a", "b", "a", "a (2)"])
    ['a', 'b', 'a (3)', 'a (2)']
    """
    taken, found = set(names), []
    for name in names:
        number, unique = 1, name
        while unique in found or (number > 1 and unique in taken):
            number += 1
            unique = f"{name} ({number})"
        found.append(unique)
    return found
