"""A trained network by the name that a user types: a checkpoint of ours, or a name of timm's registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from torch import nn

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.data.card import card_of
from vit_attn.data.pictures import SUFFIXES
from vit_attn.errors import UserError
from vit_attn.model.weights import load_weights
from vit_attn.task import Classifier, build_net


@dataclass(frozen=True)
class Network:
    """A network in evaluation, and what it was trained on.

    Args:
        net: The network.
        class_names: Names of its classes, where they are known.
        mean: Mean of the training images by channel, of pixels in [0, 1].
        std: Their standard deviation.
        img_size: Height and width of the images that it takes.
        crop: Share of the image that is left by the crop around its centre.
    """

    net: nn.Module
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    img_size: tuple[int, int]
    crop: float

    def name_of(self, index: int) -> str:
        """A class's name, or its number."""
        return self.class_names[index] if self.class_names and index < len(self.class_names) else f"class {index}"


def open_network(model: str, weights: str | None = None, img_size: int | None = None) -> Network:
    """A checkpoint of ours by its path, or a network of timm's registry with its pretrained weights.

    Args:
        model: Path of a ``.ckpt``, or a registered name.
        weights: A file or address of weights instead of the pretrained ones; ``none`` for random ones.
        img_size: Another side of the images, in pixels.

    Raises:
        UserError: If there is no such network, or if its weights cannot be had.
    """
    if model.endswith(".ckpt") or Path(model).is_file():
        if weights is not None or img_size is not None:
            raise UserError("a checkpoint has its own weights and image size: leave out --weights and --img_size")
        return _of_checkpoint(Path(model))
    if not timm.is_model(model.partition(".")[0]):
        build_net(model, 1, (1, 1), 1, {})  # which says what is close to it
    options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        net = timm.create_model(model, pretrained=weights is None, **options)
    except UserError:
        raise
    except Exception as error:  # of the hub's and timm's many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "; name a file with --weights, or try --weights=none for random ones" if weights is None else ""
        raise UserError(f"{model} cannot be had: {reason}{hint}") from error
    if weights not in (None, "none"):
        load_weights(net, str(weights))
    if getattr(net, "num_classes", 1) == 0:
        raise UserError(f"{model} has no head, so it names no class: take a network that classifies")
    config: dict[str, Any] = resolve_data_config({}, model=net)
    height, width = getattr(getattr(net, "patch_embed", None), "img_size", None) or config["input_size"][1:]
    return Network(net.eval(), _class_names(net), config["mean"], config["std"], (height, width), config["crop_pct"])


def _of_checkpoint(path: Path) -> Network:
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}")
    try:
        task = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        card = card_of(torch.load(path, map_location="cpu", weights_only=True))
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise UserError(f"{path} is not a whole checkpoint of vit-attn ({type(error).__name__})") from error
    if card is None:
        raise UserError(f"{path} does not say what data it was trained on")
    return Network(task.net.eval(), card.class_names, card.mean, card.std, card.img_size, card.crop)


def _class_names(net: Any) -> tuple[str, ...] | None:
    """Names that came with the weights, or ImageNet's where the number of classes is one of its."""
    if names := net.pretrained_cfg.get("label_names"):
        return tuple(names) if len(names) == net.num_classes else None
    subset = infer_imagenet_subset(net)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index).split(",")[0] for index in range(net.num_classes))


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises:
        UserError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        some = torch.zeros(1, device=name)
        some.item()  # which a device that computes nothing refuses
        return some.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def image_files(paths: Sequence[str]) -> list[Path]:
    """The files that are named, and the images in the folders that are named, in order.

    Raises:
        UserError: If there are none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no such image or folder: {path}")
    if not found:
        raise UserError(f"no images in {', '.join(paths)}: known are {', '.join(sorted(SUFFIXES))}")
    return found
