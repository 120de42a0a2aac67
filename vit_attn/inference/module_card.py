"""Model card of a network that is at hand as a module: of timm, ours, torchvision or Hugging Face."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vit_attn.attention_maps.recording.network_checks import check_network
from vit_attn.checkpoints.model_card import ModelCard, check_mean_std
from vit_attn.errors import UserError
from vit_attn.inference.network import TrainedNetwork
from vit_attn.inference.timm_card import card_of_timm


@dataclass(frozen=True)
class Preprocessing:
    """Classes and preprocessing that the caller knows of a network; what is None is left to the network.

    Args:
        class_names: Names of the classes by index.
        mean: Mean by channel, for pixels in [0, 1]; one number for all channels.
        std: Standard deviation by channel; one number for all channels.
        img_size: Height and width of the images in pixels; one number for a square.
    """

    class_names: Sequence[str] | None = None
    mean: Sequence[float] | float | None = None
    std: Sequence[float] | float | None = None
    img_size: Sequence[int] | int | None = None


def describe_module(net: nn.Module, given: Preprocessing) -> TrainedNetwork:
    """Describe a network by its own configuration, and by what the caller knows.

    timm's networks say how their images are normalised; those of other libraries say their size only.

    Args:
        net: A network that :func:`vit_attn.attention_maps.record` takes.
        given: What the caller knows.

    Raises:
        UserError: If it is no network, or if neither it nor the caller says how its images are made.
    """
    check_network(net)
    inner: Any = getattr(net, "_orig_mod", net)  # compiled
    config = getattr(inner, "pretrained_cfg", None) or {}
    if config.get("mean"):
        card = card_of_timm(inner, str(config.get("architecture") or type(inner).__name__), {})
    else:
        card = _card_of_other(inner, given)
    return TrainedNetwork(net, with_preprocessing(card, given))


def with_preprocessing(card: ModelCard, given: Preprocessing) -> ModelCard:
    """Replace what the caller knows in a model card.

    Raises:
        UserError: If a mean, standard deviation or size is not possible.
    """
    channels = card.in_chans
    if channels not in (1, 3):
        raise UserError(f"pictures of 1 or 3 channels can be shown, the network takes {channels}")
    mean, std = _by_channel(given.mean, card.mean, channels), _by_channel(given.std, card.std, channels)
    check_mean_std(mean, std, "preprocessing")
    names = card.label_names if given.class_names is None else tuple(map(str, given.class_names))
    height, width = _height_width(given.img_size, card.img_size)
    return replace(card, mean=mean, std=std, label_names=names, input_size=(channels, height, width))


def _card_of_other(net: Any, given: Preprocessing) -> ModelCard:
    """Make the card of a network that is not timm's; it lacks the mean, which the caller must know."""
    if given.mean is None or given.std is None:
        raise UserError(
            f"{type(net).__name__} does not say how its images are normalised: give mean=(…) and std=(…), "
            "by channel, for pixels in [0, 1]"
        )
    config = getattr(net, "config", None)
    vision = getattr(config, "vision_config", config)
    size = given.img_size or getattr(vision, "image_size", None) or getattr(net, "image_size", None)
    size = size or getattr(getattr(net, "patch_embed", None), "img_size", None)
    if size is None:
        raise UserError(f"{type(net).__name__} does not say how large its images are: give img_size=…")
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    height, width = _height_width(size, (0, 0))
    name = str(getattr(config, "name_or_path", "") or type(net).__name__)
    return ModelCard(name, {}, _hugging_face_names(config), (channels, height, width), (), ())


def _hugging_face_names(config: Any) -> tuple[str, ...] | None:
    """Class names of a configuration of Hugging Face; None for those that it makes up, such as ``LABEL_0``."""
    names = getattr(config, "id2label", None) or {}
    found = [str(names[index]) for index in range(len(names)) if index in names]
    made_up = all(name == f"LABEL_{index}" for index, name in enumerate(found))
    return None if made_up or len(found) != len(names) else tuple(found)


def _by_channel(given: Sequence[float] | float | None, known: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if given is None:
        return known
    return (float(given),) * channels if isinstance(given, int | float) else tuple(given)


def _height_width(given: Sequence[int] | int | None, known: tuple[int, int]) -> tuple[int, int]:
    if given is None:
        return known
    size = (given, given) if isinstance(given, int) else tuple(given)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"img_size must be the side of the images in pixels, or (height, width), got {given!r}")
    return size[0], size[1]
