"""Augmentation of a batch on its device, with random parameters of its own for every image.

All parameters of a step are drawn on the host first, for the global batch of all ranks from (seed, step), and sliced by
rank. So they depend neither on earlier random numbers nor on the number of workers or ranks. They reach the device in
one transfer; from there on, :func:`augment_batch` is a function of tensors alone, for which the host never waits.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.crops import crop_and_flip, draw_crops, draw_crops_and_flips
from vit_attn.data.transforms.erasing import box_masks, draw_cutout, draw_erasing
from vit_attn.data.transforms.fixed_shape import Operations, apply_to_all, jitter_operations, operations_of
from vit_attn.data.transforms.geometry import resized_crop
from vit_attn.data.transforms.mixup import Mixing, draw_mixing, mix
from vit_attn.data.transforms.packing import Array, pack_to_device
from vit_attn.data.transforms.policies import (
    Choice,
    apply_operations,
    draw_colour_jitter,
    draw_rand_augment,
    draw_trivial_augment,
)
from vit_attn.data.transforms.rng import BatchRNG

Images = Float[Tensor, "B C height width"]
Pixels = UInt8[Tensor, "B C height width"]
Targets = Int64[Tensor, " B"] | Float[Tensor, "B classes"]


class BatchParameters(NamedTuple):
    """Random parameters of a batch: arrays on the host, tensors on a device; None for what is off.

    Args:
        crops: Top, left, height and width of each random resized crop, (B, 4).
        starts: Of each crop and flip, see :func:`crop_and_flip`.
        rounds: Operations of the policies: choices, which are applied in groups, or parameters for all images.
        boxes: Boxes that are erased, and last those of CutMix, (B, K, 2, 2).
        mixing: Partners and ratios of mixup and CutMix.
    """

    crops: Array | None
    starts: Array | None
    rounds: tuple[Choice | Operations, ...]
    boxes: Array | None
    mixing: Mixing | None

    def to(self, device: torch.device | str) -> "BatchParameters":
        """The parameters on a device; choices of operations stay on the host."""
        if any(isinstance(each, Choice) for each in self.rounds):
            return pack_to_device(self._replace(rounds=()), device)._replace(rounds=self.rounds)
        return pack_to_device(self, device)


def draw_parameters(
    shape: Sequence[int],
    settings: Augment,
    rng: BatchRNG,
    flips: Bool[np.ndarray, " B"] | None = None,
    mixing: bool = False,
    grouped: bool = True,
) -> BatchParameters:
    """Draw all random parameters of a batch on the host, always in the same order.

    Args:
        shape: Shape of the batch.
        settings: The operations.
        rng: Random numbers of this step.
        flips: Which images to flip, instead of random ones.
        mixing: Whether images are mixed.
        grouped: Whether the policies' operations are for :func:`~vit_attn.data.transforms.policies.apply_operations`,
            which suits a CPU, or for :func:`~vit_attn.data.transforms.fixed_shape.apply_to_all`.
    """
    channels, size = shape[1], (shape[2], shape[3])
    crops = starts = mixed = None
    if settings.random_resized_crop:
        crops = draw_crops(np.tile(size, (rng.batch_size, 1)), settings.random_resized_crop, rng)
    if settings.crop_padding or settings.flip or flips is not None:
        starts = draw_crops_and_flips(shape, settings.crop_padding or 0, settings.flip or 0.0, rng, flips)
    rounds = _draw_rounds(size, channels, settings, rng, grouped)
    boxes = []
    if settings.cutout:
        boxes.append(draw_cutout(settings.cutout, size, rng))
    if settings.erase:
        boxes.append(draw_erasing(settings.erase, size, rng))
    if mixing:
        mixed, pasted = draw_mixing(settings.mixup or 0.0, settings.cutmix or 0.0, size, rng)
        boxes.append(pasted)
    return BatchParameters(crops, starts, tuple(rounds), np.stack(boxes, axis=1) if boxes else None, mixed)


def _draw_rounds(
    size: tuple[int, int], channels: int, settings: Augment, rng: BatchRNG, grouped: bool
) -> list[Choice | Operations]:
    rounds: list[Choice | Operations] = []
    if settings.colour_jitter:
        jitter = draw_colour_jitter(settings.colour_jitter, rng)
        rounds += jitter if grouped else jitter_operations(jitter, channels)
    choices: list[Choice] = []
    if settings.rand_augment:
        choices += draw_rand_augment(settings.rand_augment, size, rng)
    if settings.trivial_augment:
        choices.append(draw_trivial_augment(settings.trivial_augment, size, rng))
    return rounds + [each if grouped else operations_of(each, size, channels) for each in choices]


def augment_batch(
    images: Pixels,
    labels: Int64[Tensor, " B"],
    parameters: BatchParameters,
    normalize: Callable[[Pixels], Images],
    num_classes: int,
    padding: int = 0,
) -> tuple[Images, Targets]:
    """Augment, normalise and mix a batch; on parameters that are not grouped, this compiles to one graph.

    Args:
        images: Pixels, on any device.
        labels: Class indices.
        parameters: What :func:`draw_parameters` draws, on the same device.
        normalize: From pixels to what the network takes; erased pixels get 0 after it, the mean.
        num_classes: Number of classes.
        padding: Pixels of black border around an image, in which it is cropped.

    Returns:
        The images, and class indices, or class probabilities where images are mixed.
    """
    if parameters.crops is not None:
        images = resized_crop(images, parameters.crops)
    if parameters.starts is not None:
        images = crop_and_flip(images, parameters.starts, padding)
    for each in parameters.rounds:
        images = apply_operations(images, each) if isinstance(each, Choice) else apply_to_all(images, each)
    result = normalize(images)
    if parameters.boxes is None:
        return result, labels
    masks = box_masks(parameters.boxes, (images.shape[-2], images.shape[-1]))
    erased = masks if parameters.mixing is None else masks[:, :-1]
    if erased.shape[1]:
        result = result.masked_fill(erased.any(dim=1, keepdim=True) if erased.shape[1] > 1 else erased, 0.0)
    if parameters.mixing is None:
        return result, labels
    return mix(result, labels, num_classes, parameters.mixing, masks[:, -1:])
