"""What a run takes from the weights that it starts from, so that a user names them and nothing else."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from vit_attn.checkpoints.class_names import class_name
from vit_attn.checkpoints.header import find_header
from vit_attn.checkpoints.start import network_to_start_with
from vit_attn.errors import UserError
from vit_attn.model.pretrained import names_network, pretrained_weights


def take_start(settings: Any, asked: Any) -> None:
    """Fill in the network, and size, channels and normalisation of the images, from what ``model.weights`` names.

    That is a checkpoint or an export of ours, or a name of timm's registry; other files say nothing of these. What the
    user asked for stays; options of the network are put over those of the file. Without weights the network alone is
    filled in.

    Args:
        settings: Of the run, with defaults; they are changed.
        asked: Those of them that the user gave.

    Raises:
        UserError: If the weights are of another network than the user asks for, or do not say of which.
    """
    model, weights, asked_data = settings.model, start_of(settings.model), asked.get("data") or {}
    model.arch, options = network_to_start_with(model.arch, model.arch_options, weights)
    if weights is None:
        return
    if names_network(weights):
        with pretrained_weights(weights):
            config: Any = timm.get_pretrained_cfg(weights)
        channels, *size = config.input_size
    elif said := find_header(weights):
        model.arch_options = options
        if not said.mean:
            return
        channels, size = len(said.mean), said.img_size
    else:
        return
    taken: dict[str, Any] = {"normalize": weights, "channels": channels}
    taken |= {"img_size": size[0]} if size[0] == size[1] else {}
    taken = {name: value for name, value in taken.items() if asked_data.get(name) is None}
    for name, value in taken.items():
        settings.data[name] = value
    told = [f"model.arch={model.arch}", *(f"data.{name}={value}" for name, value in taken.items())]
    rank_zero_info(f"taken from {weights}: {', '.join(told)}")


def start_of(model: Any) -> str | None:
    """What the network of these settings starts from: a file, an address or a name; nothing for random weights."""
    if model.weights is not None:
        return str(model.weights)
    return model.arch if (model.arch_options or {}).get("pretrained") else None


def refuse_untrained(model: Any) -> None:
    """Refuse to train a part of a network whose rest has random weights.

    Raises:
        UserError: If so.
    """
    part = f"train={model.train}" if model.train != "all" else f"probe={model.probe}" if model.probe else None
    if part and start_of(model) is None:
        raise UserError(f"{part} leaves the rest of the network as it starts, which is random: name --model.weights")


def warn_of_normalisation(task: Any, normalize: str | None) -> None:
    """Say that weights do not tell how their images were normalised, where nobody does.

    Args:
        task: A ``Classifier`` that has just been built.
        normalize: What the user or the weights say of it.
    """
    start = task.start
    if start is not None and normalize is None and not names_network(start) and not _tells_statistics(start):
        rank_zero_warn(
            f"{start} does not say how its images were normalised, as a checkpoint does and what `vit-attn export` "
            "writes: if not by the statistics of this data set, name whose with data.normalize"
        )


def renew_head(task: Any, class_names: Sequence[str]) -> None:
    """Put a new head in place of one that names as many, but other classes.

    Args:
        task: A ``Classifier`` that has just been built.
        class_names: Classes that it is to name.
    """
    start, head = task.start, getattr(task.net, "head", None)
    if start is None or not isinstance(head, torch.nn.Linear):
        return
    if names_network(start):
        known = getattr(timm.get_pretrained_cfg(start), "label_names", None)
    else:
        known = said.class_names if (said := find_header(start)) else None
    if known is None or len(known) != len(class_names):
        return
    if [class_name(name) for name in known] != [class_name(name) for name in class_names]:
        task.net.reset_classifier(len(class_names))
        rank_zero_warn(f"{start}: the head of other classes was left out; the new one is untrained")


def _tells_statistics(weights: str) -> bool:
    said = find_header(weights)
    return said is not None and bool(said.mean)
