"""Trained networks by name: a run, a checkpoint or an export of ours, or a network of timm with pretrained weights."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from jaxtyping import Float
from timm.data import resolve_data_config
from torch import Tensor, nn

import vit_attn.model  # noqa: F401  registers our sizes
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.checkpoints.contents import weights_of
from vit_attn.checkpoints.io import card_of_checkpoint, find_card, read_card, read_checkpoint
from vit_attn.checkpoints.model_card import DATA_ARGS, ModelCard
from vit_attn.checkpoints.paths import describe_missing, looks_like_path, weights_file
from vit_attn.checkpoints.weights import load_exactly, load_weights
from vit_attn.errors import UserError
from vit_attn.inference.any_size import Patches, find_any_size_patches
from vit_attn.inference.timm_card import card_of_timm
from vit_attn.model.build import build_net, without_pretrained
from vit_attn.reports.prediction_table import unique_names

if TYPE_CHECKING:
    from vit_attn.inference.ask import Prediction
    from vit_attn.inference.attend import ImageAttention


@dataclass(frozen=True)
class TrainedNetwork:
    """Network in evaluation mode with its model card.

    Args:
        net: The network.
        card: Its architecture, classes and preprocessing.
    """

    net: Any
    card: ModelCard

    def __repr__(self) -> str:
        """Name and sizes; ``net`` has the layers."""
        size = "x".join(map(str, self.card.input_size))
        return f"TrainedNetwork({self.card.architecture}, {self.num_classes} classes, images {size})"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.net.num_classes

    def class_name(self, index: int) -> str:
        """Return the name of a class, or ``class INDEX`` if it is unknown."""
        names = self.card.label_names or ()
        return names[index] if index < len(names) else f"class {index}"

    @cached_property
    def unique_class_names(self) -> list[str]:
        """Names of all classes, with the index where several classes share one."""
        return unique_names([self.class_name(index) for index in range(self.num_classes)])

    @cached_property
    def any_size_patches(self) -> Patches | None:
        """Patches, if images of any size are taken; else None."""
        return find_any_size_patches(self.net, self.card.in_chans, self.card.img_size)

    def normalize(self, images: Sequence[np.ndarray], device: torch.device) -> Float[Tensor, "B C height width"]:
        """Make a batch of normalised images.

        Args:
            images: Pixels in 0..255, each (height, width, channels).
            device: Device of the batch.
        """
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device) / 255
        mean, std = (torch.tensor(each, device=device).view(1, -1, 1, 1) for each in (self.card.mean, self.card.std))
        return (pixels - mean) / std

    def predict(self, images: Any, fit: str = "auto") -> "Prediction | list[Prediction]":
        """Predict the class of an image, or of each in a list.

        Args:
            images: A file, a PIL image, pixels as uint8 (height, width, 3), a normalised tensor (C, height, width), or
                a list of these; also a batch. A tensor goes into the network as it is; others are prepared as in
                training.
            fit: How pictures of another shape are seen, as ``--fit`` of ``vit-attn predict``: ``auto``, ``crop``,
                ``letterbox`` or ``whole``.

        Raises:
            UserError: If an image is of another kind or cannot be read, or if the output is not finite.
        """
        from vit_attn.inference import ask  # which is built on this class

        return ask.predict(self, images, fit)

    def attention(
        self, images: Any, query: str | int | None = None, target: str | int | None = None, fit: str = "auto"
    ) -> "ImageAttention | list[ImageAttention]":
        """Compute the attention maps of an image, or of each in a list.

        Args:
            images: As for :meth:`predict`.
            query: Token whose attention is mapped, as ``--query`` of ``vit-attn attend``: ``"3,5"`` for a patch by row
                and column from 1, ``"CLS"``, or an index from 0; by default what the network pools.
            target: Class of the relevance, by name or index; by default the predicted one.
            fit: As for :meth:`predict`.

        Raises:
            UserError: If the network cannot be recorded, if there is no such query or class, or as :meth:`predict`.
        """
        from vit_attn.inference import ask

        return ask.attention(self, images, query, target, fit)

    def batch(self, images: Any, fit: str = "auto") -> Float[Tensor, "B C height width"]:
        """Make the normalised batch of images of one shape that ``net`` takes, on its device.

        Args:
            images: As for :meth:`predict`.
            fit: As for :meth:`predict`.

        Raises:
            UserError: If an image is of another kind, cannot be read, or differs in shape from the others.
        """
        from vit_attn.inference.given_pictures import given_pictures

        return given_pictures(self, images, fit).normalized


def open_network(
    model: str | Path, weights: str | None = None, img_size: int | None = None, attends: bool = False
) -> TrainedNetwork:
    """Load a trained network.

    Args:
        model: Folder of a run, whose best checkpoint is taken, else its last; a folder of runs, for the newest; path of
            a checkpoint, of a ``.safetensors`` file of ``export`` or of its folder; or a name in timm's registry, for
            pretrained weights.
        weights: File or address of weights instead of the pretrained ones; ``none`` for random ones.
        img_size: Side of the images in pixels, for a network by name; by default that of its pretraining.
        attends: Whether it must be a vision transformer, which is tested before weights are downloaded.

    Raises:
        UserError: If there is no such network, if its weights cannot be loaded, or if it is no vision transformer.
    """
    model = str(model)
    path = weights_file(model)
    if path is None and not looks_like_path(model):
        return _open_by_name(model, weights, img_size, attends)
    if path is None:
        raise UserError(describe_missing(model))
    if weights is not None or img_size is not None:
        raise UserError("a checkpoint has its own weights and image size: leave out --weights and --img_size")
    network = _open_file(path)
    if attends:
        check_attends(network.net, model, network.card.input_size)
    return network


def _open_file(path: Path) -> TrainedNetwork:
    if path.suffix == ".safetensors":
        return _open_export(path)
    network = open_checkpoint(path)
    if not network.card.mean:
        raise UserError(
            f"{path} does not say what data it was trained on, by which pictures would be normalised: train on a data "
            "module with `mean`, `std` and `class_names`; Classifier.load_from_checkpoint has the network alone"
        )
    return network


def open_checkpoint(path: Path) -> TrainedNetwork:
    """Load the network of a checkpoint of ours; its card has no class names, mean and std if it was saved without data.

    Args:
        path: The checkpoint.

    Raises:
        UserError: If there is no such checkpoint, or if its weights are not those of its network.
    """
    if not path.exists():
        raise UserError(describe_missing(path))
    checkpoint = read_checkpoint(path)
    card, state = card_of_checkpoint(checkpoint, path), weights_of(checkpoint, path)
    data_args: dict[str, Any] = {name: card.model_args[name] for name in DATA_ARGS}
    options = {name: value for name, value in card.model_args.items() if name not in DATA_ARGS}
    net = build_net(card.architecture, **data_args, options=options)
    of_net = {name.removeprefix("net."): tensor for name, tensor in state.items() if name.startswith("net.")}
    load_exactly(net, of_net, path)
    return TrainedNetwork(net.eval(), card)


def network_for_fit(network: TrainedNetwork, fit: str) -> TrainedNetwork:
    """Rebuild a network of one size if pictures are to be seen whole: its position embeddings are resampled to each.

    A line of output says so. A network that takes any size is returned as it is.

    Args:
        network: The network.
        fit: Fit of the pictures, as ``vit_attn.inference.images.seen_picture`` takes it.

    Raises:
        UserError: If its class cannot be built so, or has no grid of patches.
    """
    if fit != "whole" or network.any_size_patches:
        return network
    card = network.card
    refusal = f"{card.architecture} cannot take pictures at their own shape: choose --fit=crop or --fit=letterbox"
    options: dict[str, Any] = {**without_pretrained(card.model_args), "num_classes": network.num_classes}
    try:
        net = timm.create_model(card.architecture, pretrained=False, **(options | {"dynamic_img_size": True}))
        load_exactly(net, network.net.state_dict(), card.architecture)
    except Exception as error:  # each class refuses the option in its own way
        raise UserError(refusal) from error
    rebuilt = TrainedNetwork(net.eval().to(next(network.net.parameters()).device), card)
    if not rebuilt.any_size_patches:
        raise UserError(refusal)
    line = "was trained on images of one shape: its position embeddings are resampled to each picture's"
    sys.stdout.write(f"{card.architecture} {line}\n")
    return rebuilt


def _open_export(path: Path) -> TrainedNetwork:
    card = read_card(path)
    try:
        net = timm.create_model(card.architecture, pretrained=False, **card.model_args)
    except Exception as error:  # timm raises many types, and another version may not have the network
        raise UserError(f"{path}: its network {card.architecture} cannot be built here: {error}") from error
    load_weights(net, path)
    return TrainedNetwork(net.eval(), card)


def _open_by_name(name: str, weights: str | None, img_size: int | None, attends: bool) -> TrainedNetwork:
    card = find_card(weights) if weights is not None and weights_file(weights) else None
    if card is not None and card.architecture:
        raise UserError(f"{weights} says which network it is of: --model {weights} is enough, without --weights")
    if not timm.is_model(name.partition(".")[0]):
        if Path(name).exists():
            raise UserError(describe_missing(name))
        build_net(name, 1, (1, 1), 1, {})  # raises, with similar names
    options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    if attends:
        _check_name(name, options)
    try:
        net = timm.create_model(name, pretrained=weights is None, **options)
    except UserError:
        raise
    except Exception as error:  # timm and the hub raise many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "; name a file with --weights, or try --weights=none for random ones" if weights is None else ""
        raise UserError(f"{name} cannot be had: {reason}{hint}") from error
    if weights not in (None, "none"):
        load_weights(net, str(weights))
    if getattr(net, "num_classes", 1) == 0:
        raise UserError(f"{name} has no head, so it predicts no class: take a network that classifies")
    return TrainedNetwork(net.eval(), card_of_timm(net, name, options))


def _check_name(name: str, options: dict[str, Any]) -> None:
    """Refuse a name whose network is no vision transformer, from the network without weights.

    Raises:
        UserError: If it is none.
    """
    try:
        with torch.device("meta"):
            net = timm.create_model(name, pretrained=False, **options)
    except Exception:  # some compute with their own weights while they are built, and wrong options are reported later
        return
    channels, height, width = resolve_data_config({}, model=net)["input_size"]
    side = options.get("img_size")
    check_attends(net, name, (channels, side or height, side or width))


def check_attends(net: nn.Module, name: str, input_size: tuple[int, int, int]) -> None:
    """Refuse a network that is no vision transformer, or whose tokens are no grid; its weights may be on no device.

    Args:
        net: The network.
        name: Its name, for the message.
        input_size: Channels, height and width of its images.

    Raises:
        UserError: If it is none.
    """
    try:
        attention_modules(net)
        token_layout(net, torch.empty(1, *input_size, device="meta"))
    except UserError as error:
        raise UserError(f"{name} is no vision transformer whose attention can be shown: {error}") from error


def pick_device(name: str) -> torch.device:
    """Find a device by name; ``auto`` is a GPU if there is one.

    Raises:
        UserError: If there is no such device, or if it computes nothing, as ``meta``.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        some = torch.zeros(1, device=name)
        some.item()  # raises on a device without data
        return some.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
