"""A trained network by the name that a user types: a checkpoint, an export of ours, or a name of timm's registry."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float, UInt8
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from torch import Tensor, nn

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.checkpoints.contents import hyperparameters_of, weights_of
from vit_attn.checkpoints.header import MADE_FOR, Header, find_header, header_of, read_header
from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.checkpoints.stored_network import check_hyperparameters, check_network
from vit_attn.checkpoints.weights import load_exactly, load_weights
from vit_attn.data.datasets.files.listing import pictures_in, what_is_left_out
from vit_attn.data.images.image_file import SUFFIXES, fit_picture, read_picture
from vit_attn.errors import UserError, one_line
from vit_attn.model.build import build_net, without_pretrained
from vit_attn.reports.prediction_table import unique_names


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
        arch: Its name in timm's registry.
        options: With which ``timm.create_model`` makes it again.
        bits: Those that grey pictures of more than 8 use, where its training images had some.
        depths: Of pictures of more than 8 bits that were read by their own values, the bits that each uses.
    """

    net: nn.Module
    class_names: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    img_size: tuple[int, int]
    crop: float
    arch: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    bits: int | None = None
    depths: list[int] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        classes: Any = self.net.num_classes
        return classes

    def name_of(self, index: int) -> str:
        """A class's name, or its number."""
        return self.class_names[index] if self.class_names and index < len(self.class_names) else f"class {index}"

    @cached_property
    def _unique_names(self) -> list[str]:
        return unique_names([self.name_of(index) for index in range(self.num_classes)])

    def unique_name_of(self, index: int) -> str:
        """A class's name, with its number where another class has that name, too."""
        return self._unique_names[index]

    def read(self, path: Path) -> UInt8[np.ndarray, "height width channels"] | str:
        """The image in a file as the network sees it; or what is wrong with the file."""
        try:
            picture = read_picture(path, len(self.mean), self.bits)
        except UserError as error:
            return str(error)
        if self.bits is None and "bits" in picture.info:
            self.depths.append(picture.info["bits"])
        return fit_picture(picture, self.img_size, self.crop)

    def say_depths(self) -> str:
        """How pictures of more than 8 bits were read, where training does not tell; or nothing."""
        if not self.depths:
            return ""
        each = ", ".join(f"{count} use {bits}" for bits, count in sorted(Counter(self.depths).items()))
        return f"pictures of 16 bits: each is scaled by the bits that it uses, as the training images had none: {each}"

    def normalised(self, pictures: Sequence[np.ndarray], device: torch.device) -> Float[Tensor, "B C height width"]:
        """What the network takes, from what ``read`` gives."""
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device) / 255
        mean, std = (torch.tensor(each, device=device).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return (pixels - mean) / std


def open_network(model: str, weights: str | None = None, img_size: int | None = None) -> Network:
    """A checkpoint or an export of ours by its path, or a network of timm's registry with its pretrained weights.

    Args:
        model: Path of a ``.ckpt`` or of a ``.safetensors`` that ``export`` wrote, or a registered name.
        weights: A file or address of weights instead of the pretrained ones; ``none`` for random ones.
        img_size: Another side of the images, in pixels.

    Raises:
        UserError: If there is no such network, or if its weights cannot be had.
    """
    if model.endswith((".ckpt", ".safetensors")) or Path(model).is_file():
        if weights is not None or img_size is not None:
            raise UserError("a checkpoint has its own weights and image size: leave out --weights and --img_size")
        return _of_export(Path(model)) if model.endswith(".safetensors") else _of_checkpoint(Path(model))
    if weights is not None and find_header(weights):
        raise UserError(f"{weights} says which network it is of: --model {weights} is enough, without --weights")
    if not timm.is_model(model.partition(".")[0]):
        if Path(model).is_dir():
            read_checkpoint(model)  # which says what to name instead
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
    size = (height, width)
    return Network(
        net.eval(), _class_names(net), config["mean"], config["std"], size, config["crop_pct"], model, options
    )


def _of_export(path: Path) -> Network:
    known = read_header(path)
    check_network(path, known.architecture, known.options)
    try:
        net = timm.create_model(known.architecture, pretrained=False, **known.options)
    except Exception as error:  # a network that this timm does not have, or other options
        raise UserError(f"{path}: its network {known.architecture} cannot be built here: {error}") from error
    load_weights(net, path)
    return _network(net, known)


def _of_checkpoint(path: Path) -> Network:
    net, known = network_of_checkpoint(path)
    if not known.mean:
        raise UserError(f"{path} does not say what data it was trained on")
    return _network(net, known)


def _network(net: nn.Module, known: Header) -> Network:
    return Network(
        net.eval(),
        known.class_names,
        known.mean,
        known.std,
        known.img_size,
        known.crop_pct,
        known.architecture,
        known.options,
        known.bits,
    )


def network_of_checkpoint(path: Path) -> tuple[nn.Module, Header]:
    """The network of a checkpoint of ours with its weights, and what is known of it.

    Raises:
        UserError: If there is no such checkpoint, or if its weights are not those of its network.
    """
    if not path.exists():
        raise UserError(f"checkpoint not found: {path}")
    checkpoint = read_checkpoint(path)
    check_hyperparameters(path, hyperparameters_of(checkpoint, path))
    known, state = header_of(checkpoint, path), weights_of(checkpoint, path)
    options = {name: value for name, value in without_pretrained(known.options).items() if name not in MADE_FOR}
    made_for: dict[str, Any] = {name: known.options[name] for name in MADE_FOR}
    net = build_net(known.architecture, **made_for, options=options)
    of_net = {name.removeprefix("net."): tensor for name, tensor in state.items() if name.startswith("net.")}
    load_exactly(net, of_net, path)
    return net, known


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
    """The files that are named, and the pictures in and below the folders that are named: those that ``fit`` takes.

    They are in the order given, those of a folder sorted. What a folder holds besides is counted in a line.

    Args:
        paths: Files and folders.

    Raises:
        UserError: If there are none, or if a folder cannot be read.
    """
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            inside, besides = pictures_in(path)
            found += sorted(inside)
            left_out += besides
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no such image or folder: {path}")
    said = what_is_left_out(left_out)
    if not found:
        raise UserError(
            f"no images in {', '.join(paths)}{f' ({said})' if said else ''}: known are {', '.join(sorted(SUFFIXES))}"
        )
    if said:
        sys.stdout.write(f"{one_line(said)}\n")
    return found


def each_once(files: Sequence[Path]) -> list[Path]:
    """The files without those that were named before, which are counted in a line."""
    once: dict[str, Path] = {}
    for path in files:
        once.setdefault(os.path.abspath(path), path)
    if again := len(files) - len(once):
        sys.stdout.write(f"named more than once, read once: {again:,} image{'s' * (again > 1)}\n")
    return list(once.values())
