"""What a run takes from the weights that it starts from, so that a user names them and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from vit_attn.data.card import card_of
from vit_attn.errors import UserError
from vit_attn.model.weights import names_network, pretrained_weights
from vit_attn.task import without_pretrained


def take_start(settings: Any, asked: Any) -> None:
    """Fill in the network, and size, channels and normalisation of the images, from what ``model.weights`` names.

    That is a checkpoint of ours or a name of timm's registry; a file of weights alone says nothing of these. What the
    user asked for stays; options of the network are put over the checkpoint's.

    Args:
        settings: Of the run, with defaults; they are changed.
        asked: Those of them that the user gave.

    Raises:
        UserError: If the weights are a checkpoint of another network than the user asks for.
    """
    model, weights = settings.model, start_of(settings.model)
    asked_model, asked_data = asked.get("model") or {}, asked.get("data") or {}
    arch = asked_model.get("arch")
    if weights is None:
        return
    if names_network(weights):
        model.arch = arch or weights.partition(".")[0]
        with pretrained_weights(weights):
            config: Any = timm.get_pretrained_cfg(weights)
        channels, *size = config.input_size
    elif checkpoint := _checkpoint(weights):
        stored, card = checkpoint["hyper_parameters"], card_of(checkpoint)
        if arch not in (None, stored["arch"]):
            raise UserError(f"{weights} is a checkpoint of {stored['arch']}, not of {arch}: leave out model.arch")
        model.arch = stored["arch"]
        model.arch_options = without_pretrained(stored.get("arch_options")) | (asked_model.get("arch_options") or {})
        if card is None:
            return
        channels, size = len(card.mean), card.img_size
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


def renew_head(task: Any, class_names: Sequence[str]) -> None:
    """Put a new head in place of one that names as many, but other classes.

    Args:
        task: A ``Classifier`` that has just been built.
        class_names: Classes that it is to name.
    """
    start, head = task.start, getattr(task.net, "head", None)
    if start is None or not isinstance(head, torch.nn.Linear):
        return
    card = card_of(_checkpoint(start))
    known = card.class_names if card else None
    if names_network(start):
        known = getattr(timm.get_pretrained_cfg(start), "label_names", None)
    if known is not None and len(known) == len(class_names) and tuple(known) != tuple(class_names):
        task.net.reset_classifier(len(class_names))
        rank_zero_warn(f"{start}: the head of other classes was left out; the new one is untrained")


def _checkpoint(weights: str) -> dict[str, Any]:
    """A checkpoint of ours, if that is what the weights are; other files are left to those who read weights."""
    if not (weights.endswith(".ckpt") and Path(weights).is_file()):
        return {}
    try:
        content = torch.load(weights, weights_only=True, map_location="cpu")
        return content if "arch" in content["hyper_parameters"] else {}
    except Exception:  # a damaged file can fail in any way, and is told when its weights are read
        return {}
