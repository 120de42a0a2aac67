"""Start of a run from weights: its network, image size, channels, normalisation and head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from vit_attn.checkpoints.class_names import class_name
from vit_attn.checkpoints.io import find_card
from vit_attn.checkpoints.model_card import DATA_ARGS, ModelCard
from vit_attn.checkpoints.paths import weights_file
from vit_attn.checkpoints.weights import load_weights
from vit_attn.errors import UserError
from vit_attn.model.build import build_net
from vit_attn.model.pretrained import changes_of_pretrained, names_network

DEFAULT_ARCH = "vit_attn_tiny_patch4_32"
"""Network of a run for which neither the user nor the weights name one."""
DEFAULT_SIZES = {"num_classes": 10, "img_size": (32, 32), "in_chans": 3}
"""Classes and images of a network for which neither the user nor the weights say them."""


@dataclass(frozen=True)
class Start:
    """Network and weights with which a run starts.

    Args:
        arch: Name of the network in timm's registry.
        arch_options: Arguments with which it is built, besides those that follow from the data.
        weights: File, address or name of the weights; None for random ones.
        pretrained: Whether timm itself loads the weights, by their name.
        card: Model card of the weights; None if they have none.
    """

    arch: str
    arch_options: dict[str, Any]
    weights: str | None = None
    pretrained: bool = False
    card: ModelCard | None = None


@runtime_checkable
class StartedTask(Protocol):
    """Task whose network was built from a :class:`Start`."""

    net: Any
    """The network: any of timm's registry."""
    start: str | None
    """File, address or name of the weights that the network started from."""


def resolve_start(weights: str | None, arch: str | None = None, arch_options: Mapping[str, Any] | None = None) -> Start:
    """Determine the network and the weights with which a run starts.

    Args:
        weights: A checkpoint or an export of ours, or the folder of a run, whose network is built; a name in timm's
            registry; or another file or address of weights, which needs ``arch``. None for random weights.
        arch: Name of the network, if the user gives one.
        arch_options: Model arguments that the user gives; they override those of the file. ``pretrained`` takes timm's
            weights for ``arch``.

    Raises:
        UserError: If the weights are of another network than ``arch``, or if neither names a network.
    """
    options = dict(arch_options or {})
    if weights is None:
        arch = arch or DEFAULT_ARCH
        return Start(arch, options, arch, True, find_card(arch)) if options.get("pretrained") else Start(arch, options)
    weights = str(weights_file(weights) or weights)
    card = find_card(weights)
    if names_network(weights):
        of_weights = weights.partition(".")[0]
        arch = arch or of_weights
        return Start(arch, options, weights, arch.partition(".")[0] == of_weights, card)
    if card is not None and card.architecture:
        if arch not in (None, card.architecture):
            raise UserError(f"{weights} is of the network {card.architecture}, not of {arch}: leave out model.arch")
        stored = {name: value for name, value in card.model_args.items() if name not in DATA_ARGS}
        return Start(card.architecture, stored | options, weights, card=card)
    if arch is None and (weights_file(weights) or weights.startswith(("https://", "http://"))):
        raise UserError(
            f"{weights} does not say which network it is of: name that, with model.arch and model.arch_options "
            "(judge: --arch, --arch_options)"
        )
    return Start(arch or DEFAULT_ARCH, options, weights, card=card)


def build_start(
    start: Start, num_classes: int, img_size: tuple[int, int], in_chans: int
) -> tuple[nn.Module, list[str]]:
    """Build the network of a start with its weights.

    Args:
        start: Network and weights.
        num_classes: Number of logits.
        img_size: Height and width of the images in pixels.
        in_chans: Channels of the images.

    Returns:
        The network, and a sentence for each change that was made to its weights.

    Raises:
        UserError: If there is no such network, or if the weights do not fit it.
    """
    if start.pretrained and start.weights:
        net = build_net(start.weights, num_classes, img_size, in_chans, {**start.arch_options, "pretrained": True})
        return net, changes_of_pretrained(net, num_classes, img_size)
    net = build_net(start.arch, num_classes, img_size, in_chans, start.arch_options)
    return net, load_weights(net, start.weights) if start.weights else []


def apply_to_settings(start: Start, model: Namespace, data: Namespace) -> None:
    """Set the network of a run, and what the user left open of image size, channels and normalisation.

    Args:
        start: Where the run starts.
        model: Settings of ``Classifier``; ``arch`` and ``arch_options`` are set.
        data: Settings of ``ImageData``; of ``normalize``, ``channels`` and ``img_size`` those that are None are set,
            if ``model.weights`` has a model card.
    """
    model.arch = start.arch
    if model.weights is None:
        return
    if start.arch_options != (model.arch_options or {}):
        model.arch_options = start.arch_options
    card = start.card
    if card is None or not card.mean:
        return
    height, width = card.img_size
    found = {
        "normalize": start.weights,
        "channels": card.in_chans,
        "img_size": height if height == width else [height, width],
    }
    found = {
        name: value for name, value in found.items() if value is not None and name in data and data.get(name) is None
    }
    for name, value in found.items():
        data[name] = value
    settings = [f"model.arch={start.arch}", *(f"data.{name}={value}" for name, value in found.items())]
    rank_zero_info(f"set by {start.weights}: {', '.join(settings)}")


def check_trainable(start: Start, train: str | int, probe: float) -> None:
    """Refuse to freeze random weights.

    Args:
        start: Where the run starts.
        train: Part of the network that trains, as ``Classifier`` takes it.
        probe: Fraction of the run in which the head alone trains.

    Raises:
        UserError: If a part of a network with random weights is frozen.
    """
    frozen = f"train={train}" if train != "all" else f"probe={probe}" if probe else None
    if frozen and start.weights is None:
        raise UserError(f"{frozen} freezes the rest of the network, whose weights are random: name --model.weights")


def apply_to_task(task: StartedTask, class_names: Sequence[str], normalize: str | None) -> None:
    """Replace a head of as many, but other classes, and warn of weights whose normalisation is unknown.

    Args:
        task: A ``Classifier`` that has just been built.
        class_names: Classes of the data set.
        normalize: The setting of ``ImageData``.
    """
    if task.start is None:
        return
    card = find_card(task.start)
    if normalize is None and (card is None or not card.mean) and not names_network(task.start):
        rank_zero_warn(
            f"{task.start} does not say how its images were normalised, as checkpoints and files of `vit-attn export` "
            "do: if not by the mean and standard deviation of this data set, name theirs with data.normalize"
        )
    known = card.label_names if card else None
    if known is None or len(known) != len(class_names) or not isinstance(getattr(task.net, "head", None), nn.Linear):
        return
    if list(map(class_name, known)) != list(map(class_name, class_names)):
        task.net.reset_classifier(len(class_names))
        rank_zero_info(f"{task.start}: the head of other classes was left out; the new one is untrained")
