"""Checks of arguments, with one-line errors before anything is computed."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vit_attn.attention_maps.precision import NotFinite
from vit_attn.attention_maps.recording.inputs import patches_of, takes_keywords
from vit_attn.attention_maps.recording.network_checks import (
    check_batch,
    check_network,
    check_parameters,
    input_mismatch,
)
from vit_attn.errors import UserError, is_out_of_memory, one_line, shortened, some_of


def whole(name: str, value: Any, least: int = 1) -> int:
    """Check that a value is a whole number, neither a bool nor a float.

    >>> whole("steps", 3)
    3

    Raises:
        UserError: If it is not, or if it is too small.
    """
    try:
        if isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{name} must be a whole number from {least}, got {_short(value)}") from error
    if number < least:
        raise UserError(f"{name} must be at least {least}, got {number}")
    return number


def indices(name: str, given: Any, count: int, of: str = "") -> list[int]:
    """Check indices; negative ones count from the last.

    >>> indices("layers", [0, -1], 12)
    [0, 11]

    Args:
        name: Name of the argument, for the message.
        given: A sequence, array or tensor of whole numbers.
        count: Number of things that are indexed.
        of: Their name, for the message.

    Returns:
        Indices from 0.

    Raises:
        UserError: If ``given`` is no sequence of whole numbers, or if one is out of range.
    """
    wanted = f"{name} must be {of}in 0..{count - 1}"
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)) or _is_scalar(given):
        raise UserError(f"{wanted}, as a list such as [0], got {_short(given)}")
    if isinstance(given, Tensor) and given.is_meta:
        raise UserError(f"{wanted}, got a tensor on the meta device, which holds no numbers")
    listed = list(given.tolist()) if isinstance(given, (Tensor, np.ndarray)) else list(given)
    try:
        numbers = [whole(name, value, least=-count) for value in listed]
    except UserError as error:
        raise UserError(f"{wanted}, got {_short(listed)}") from error
    if outside := [number for number in numbers if number >= count]:
        raise UserError(f"{wanted}, got {_short(outside)}")
    return [number % count for number in numbers]


def fraction(name: str, value: Any) -> float:
    """Check that a value is a number in [0, 1).

    Raises:
        UserError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
        raise UserError(f"{name} must be in [0, 1), got {_short(value)}")
    return float(value)


def has_numbers(value: Any) -> bool:
    """Test for a tensor that is not on the meta device."""
    return isinstance(value, Tensor) and not value.is_meta


def class_targets(target: Any, images: int, device: torch.device) -> Tensor:
    """Target classes, one per image, from one class for all images or one for each.

    Raises:
        UserError: If these are not whole numbers, or not one per image.
    """
    try:
        classes = target.to(device) if isinstance(target, Tensor) else torch.as_tensor(target, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"the target must be a class (a whole number) or one for each image, got {_short(target)}"
        ) from error
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise UserError(f"the target must be a class (a whole number) or one for each image, got {_short(target)}")
    if classes.ndim > 1:
        raise UserError(f"the target must be one class, or one for each image, got {tuple(classes.shape)}")
    if classes.ndim and len(classes) != images:
        raise UserError(f"the target must be one class, or one for each of {images} images, got {len(classes)}")
    return classes.long().expand(images)


def in_head(classes: Tensor, count: int) -> Tensor:
    """Check that classes are in 0..count - 1.

    Raises:
        UserError: If one is not.
    """
    outside = classes[(classes < 0) | (classes >= count)]
    if len(outside):
        raise UserError(f"the target must be a class in 0..{count - 1}, got {_short(outside.unique().tolist())}")
    return classes


def check_images(net: Any, images: Any, or_patches: bool = False) -> None:
    """Check that images are a finite batch, and that the network can be run.

    Args:
        net: The network.
        images: The images.
        or_patches: Whether named tensors with patches are taken instead.

    Raises:
        UserError: If they are not, or if it cannot.
    """
    check_network(getattr(net, "_orig_mod", net))
    check_parameters(net)
    if isinstance(images, Mapping) and not or_patches:
        raise UserError("patches are taken by record and summarize only: give images (batch, channels, height, width)")
    check_batch(images)
    if not (patches_of(images) if isinstance(images, Mapping) else images).isfinite().all():
        raise UserError("the images hold NaN or infinity")


def call_network(net: nn.Module, images: Tensor | Mapping[str, Tensor]) -> Any:
    """Call a network on images, or on named tensors: as keywords where its forward has these, else as one dictionary.

    Raises:
        UserError: If the network does not take them; its own error is the cause.
    """
    try:
        return net(**images) if takes_keywords(net, images) else net(images)
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        found = patches_of(images) if isinstance(images, Mapping) else images
        kind = "patches" if isinstance(images, Mapping) else "images"
        why = (
            input_mismatch(net, images)
            or f"{type(net).__name__} does not take {kind} {tuple(found.shape)}: {first_line(error)}"
        )
        raise UserError(why) from error


def first_line(error: BaseException) -> str:
    """First sentence of torch's error, without its advice, or the error's type if it has no text."""
    sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
    return shortened(one_line(sentence or type(error).__name__), 240)


def check_order(order: Any, images: int, patches: int) -> None:
    """Check that an order ranks all patches, of each image or for all images.

    Raises:
        UserError: If it does not, as a map itself does not.
    """
    shape = tuple(order.shape) if isinstance(order, Tensor) else type(order).__name__
    if not has_numbers(order) or order.ndim != 2 or order.shape[1] != patches or len(order) not in (1, images):
        raise UserError(f"the order must be of {patches} patches for {images} images, got {shape}")
    patch_indices = torch.arange(patches, device=order.device)
    if order.is_floating_point() or order.dtype == torch.bool or not (order.sort(dim=-1).values == patch_indices).all():
        raise UserError(f"the order must hold each patch, 0..{patches - 1}, once: order_of(map) makes one from a map")


def check_maps(maps: Any, name: str = "maps") -> None:
    """Check that maps have one finite number per patch of each image.

    Raises:
        UserError: If they do not.
    """
    if not has_numbers(maps) or maps.ndim != 2 or not maps.numel():
        found = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise UserError(f"{name} must be a tensor (images, patches), got {found}")
    if not maps.isfinite().all():
        raise UserError(f"{name} hold NaN or infinity, which have no rank")


def check_region(region: Any, maps: Tensor) -> None:
    """Check that a region is a mask over the patches of maps.

    Raises:
        UserError: If it is not.
    """
    if not has_numbers(region) or region.dtype != torch.bool or region.shape != maps.shape:
        found = f"{tuple(region.shape)} of {region.dtype}" if isinstance(region, Tensor) else type(region).__name__
        raise UserError(f"a region must be a mask of {len(maps)} images and {maps.shape[1]} patches, got {found}")


def check_map_pair(a: Any, b: Any) -> None:
    """Check that two maps can be compared patch by patch.

    Raises:
        UserError: If they differ in shape, or are not finite.
    """
    check_maps(a)
    check_maps(b)
    if a.shape != b.shape:
        raise UserError(f"maps of the same images and patches are compared, got {tuple(a.shape)} and {tuple(b.shape)}")


def check_weights(weights: Any) -> None:
    """Check that attention weights are finite and of shape (images, heads, queries, keys).

    Raises:
        UserError: If they are not.
    """
    if not has_numbers(weights) or weights.ndim != 4 or not weights.numel() or not weights.is_floating_point():
        found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise UserError(f"weights must be (images, heads, queries, keys), got {found}")
    if not weights.isfinite().all():
        raise UserError("weights hold NaN or infinity: check the images and the network")


def check_logits(output: Tensor) -> Tensor:
    """Check that logits are finite.

    Raises:
        UserError: If they are not a tensor.
        NotFinite: If one is NaN or infinity.
    """
    if not has_numbers(output):
        raise UserError(f"logits must be a tensor with numbers, got {type(output).__name__}")
    if not output.isfinite().all():
        raise NotFinite("the network gives NaN or infinity: check its weights and the images")
    return output


def _is_scalar(given: Any) -> bool:
    return isinstance(given, (Tensor, np.ndarray)) and given.ndim == 0


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.tolist() if value.numel() <= 10 and not value.is_meta else tuple(value.shape)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 10:
        return f"[{some_of(value)}]"
    return one_line(value if not isinstance(value, str) else repr(value))
