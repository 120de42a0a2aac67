"""From a picture to the pixels that a worker hands out, by torchvision's transforms."""

import math

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vit_attn.data.images.decoding import SPARE
from vit_attn.data.images.image_file import fit_picture
from vit_attn.data.transforms.augment import OFF, Augment


class Centre:
    """The centre of a picture as pixels, as validation has it.

    Args:
        size: Height and width in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.least = size, SPARE * max(size)

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "C height width"]:
        """The pixels."""
        return torch.from_numpy(fit_picture(picture, self.size)).permute(2, 0, 1)


class Augmented:
    """A picture as training has it: ``augment`` in torchvision's transforms, of pictures in their own size.

    Args:
        size: Height and width in pixels.
        on: What to do; what follows normalisation or takes several images is left to the device.
    """

    def __init__(self, size: tuple[int, int], on: Augment) -> None:
        self.fit = v2.RandomResizedCrop(size, (on.random_resized_crop, 1.0)) if on.random_resized_crop else None
        self.centre = Centre(size)
        self.least = least_side(size, on.random_resized_crop)
        steps = {
            v2.RandomCrop(size, padding=on.crop_padding): on.crop_padding,
            v2.RandomHorizontalFlip(on.flip or 0.0): on.flip,
            _colour_jitter(on.colour_jitter or 0.0): on.colour_jitter,
            v2.RandAugment(2, on.rand_augment or 0): on.rand_augment,
            v2.RandomApply([v2.TrivialAugmentWide()], on.trivial_augment or 0.0): on.trivial_augment,
        }
        self.steps = [step for step, wanted in steps.items() if wanted]

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "C height width"]:
        """The pixels."""
        image = self.centre(picture) if self.fit is None else tv.pil_to_tensor(self.fit(picture))
        for step in self.steps:
            image = step(image)
        return image


def least_side(size: tuple[int, int], part: float | None) -> int:
    """Shorter side, in pixels, from which on a picture has enough detail.

    Args:
        size: Height and width in pixels that the network takes.
        part: Least share of the picture that is resized to that; nothing for the whole.
    """
    side = math.sqrt(0.75 * part) if part else 1.0  # of the smallest and narrowest part
    return math.ceil(SPARE * max(size) / side)


def on_device(on: Augment) -> Augment:
    """What of ``augment`` is left to do for a batch on its device, after :class:`Augmented`."""
    return Augment(erase=on.erase, mixup=on.mixup, cutmix=on.cutmix, mix_until=on.mix_until, cutout=on.cutout).over(OFF)


def _colour_jitter(strength: float) -> v2.ColorJitter:
    return v2.ColorJitter(strength, strength, strength, strength / 4)
