"""Transforms of one picture in a worker: resizing and cropping, and torchvision's augmentations."""

import math

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.images.image_file import OVERSAMPLING, fit_picture
from vit_attn.data.transforms.augment import OFF, Augment


class CentreCrop:
    """Resize the shorter side and crop the centre, as for validation.

    Args:
        size: Height and width in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.min_side = size, OVERSAMPLING * max(size)

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "C height width"]:
        """The pixels."""
        return torch.from_numpy(fit_picture(picture, self.size)).permute(2, 0, 1)


class HostAugment:
    """Augment a picture in its original size; the rest is left to the device, see :func:`device_part`.

    Args:
        size: Height and width of the result in pixels.
        settings: The operations.
    """

    def __init__(self, size: tuple[int, int], settings: Augment) -> None:
        area = settings.random_resized_crop
        self.random_crop = v2.RandomResizedCrop(size, (area, 1.0)) if area else None
        self.centre_crop = CentreCrop(size)
        self.min_side = min_side(size, area)
        steps = {
            v2.RandomCrop(size, padding=settings.crop_padding): settings.crop_padding,
            v2.RandomHorizontalFlip(settings.flip or 0.0): settings.flip,
            _colour_jitter(settings.colour_jitter or 0.0): settings.colour_jitter,
            v2.RandAugment(2, settings.rand_augment or 0): settings.rand_augment,
            v2.RandomApply([v2.TrivialAugmentWide()], settings.trivial_augment or 0.0): settings.trivial_augment,
        }
        self.steps = [step for step, wanted in steps.items() if wanted]

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "C height width"]:
        """The pixels."""
        cropped = self.centre_crop(picture) if self.random_crop is None else tv.pil_to_tensor(self.random_crop(picture))
        for step in self.steps:
            cropped = step(cropped)
        return cropped


def min_side(size: tuple[int, int], min_area: float | None) -> int:
    """Shorter side, in pixels, of a picture that has enough detail for the network.

    Args:
        size: Height and width in pixels that the network takes.
        min_area: Smallest fraction of the area that random crops take; None for the whole picture.
    """
    side = math.sqrt(0.75 * min_area) if min_area else 1.0  # of the smallest and narrowest crop
    return math.ceil(OVERSAMPLING * max(size) / side)


def device_part(settings: Augment) -> Augment:
    """The operations that :class:`HostAugment` leaves to the device: those after normalisation or on several images."""
    return Augment(
        erase=settings.erase,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        mix_until=settings.mix_until,
        cutout=settings.cutout,
    ).over(OFF)


def _colour_jitter(strength: float) -> v2.ColorJitter:
    return v2.ColorJitter(strength, strength, strength, strength / 4)
