"""Settings of the augmentation of training images."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ParamSpec

from vit_attn.errors import UserError, did_you_mean

P = ParamSpec("P")

UPPER_BOUNDS = {
    "crop_padding": 1024,
    "flip": 1,
    "rand_augment": 30,
    "erase": 1,
    "mixup": 100,
    "cutmix": 100,
    "mix_until": 1,
    "trivial_augment": 1,
    "colour_jitter": 1,
    "cutout": 1024,
    "random_resized_crop": 1,
}
"""Largest value of each number; the smallest is 0."""


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images; 0 turns an operation off, and one that is not given is the data set's own.

    Args:
        crop_padding: Pixels of black border around an image, from which a random crop of the image's size is taken.
        flip: Probability of a horizontal flip.
        rand_augment: Magnitude, 1 to 30, of two random operations per image (arXiv 1909.13719).
        erase: Probability that a box of an image is erased (arXiv 1708.04896).
        mixup: Beta parameter of mixup, which blends each image with another (arXiv 1710.09412).
        cutmix: Beta parameter of CutMix, which pastes a box of another image (arXiv 1905.04899). With mixup, each is
            used for half of the images.
        mix_until: Fraction of the training after which mixup and CutMix stop.
        flip_alternating: Whether each image is flipped in every other epoch, half of the images in the first, instead
            of at random (arXiv 2404.00498). Needs all images in the device's memory.
        trivial_augment: Probability of one random operation of random magnitude (arXiv 2103.10158); not together with
            rand_augment.
        colour_jitter: Strength in [0, 1]: brightness, contrast and saturation change by factors in 1 ± strength, hue by
            up to a quarter of it of the colour circle (arXiv 2002.05709).
        cutout: Side, in pixels, of a square around a random pixel that is erased in each image (arXiv 1708.04552).
        random_resized_crop: Smallest fraction of an image's area in a random crop, 3:4 to 4:3 in shape, that is resized
            to the whole (arXiv 1409.4842); 0 for none; not together with crop_padding.
    """

    crop_padding: int | None = None
    flip: float | None = None
    rand_augment: int | None = None
    erase: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    mix_until: float | None = None
    flip_alternating: bool | None = None
    trivial_augment: float | None = None
    colour_jitter: float | None = None
    cutout: int | None = None
    random_resized_crop: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that are out of range, and operations that exclude each other."""
        for name, high in UPPER_BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= high:
                raise UserError(f"augment.{name} must be in 0..{high}, got {value}")
        if self.rand_augment and self.trivial_augment:
            raise UserError(
                f"augment.rand_augment={self.rand_augment} and augment.trivial_augment={self.trivial_augment} do the "
                "same in two ways: set one of them to 0"
            )
        if self.crop_padding and self.random_resized_crop:
            raise UserError(
                f"augment.crop_padding={self.crop_padding} and augment.random_resized_crop={self.random_resized_crop} "
                "both crop: set one of them to 0"
            )

    def over(self, base: "Augment") -> "Augment":
        """These settings, and those of ``base`` where none is given; of the two crops, the given one stays.

        >>> Augment(flip=0.1).over(Augment(crop_padding=4, flip=0.5)).crop_padding
        4
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.random_resized_crop and base.crop_padding:
            given.setdefault("crop_padding", 0)
        if self.crop_padding and base.random_resized_crop:
            given.setdefault("random_resized_crop", 0.0)
        return replace(base, **given)


NOT_GIVEN = Augment()
OFF = Augment(crop_padding=0, flip=0.0, rand_augment=0, erase=0.0, mixup=0.0, cutmix=0.0, mix_until=1.0)

if TYPE_CHECKING:
    AugmentLike = Augment | Mapping[str, Any]
else:
    AugmentLike = Augment  # of which the command line makes an option for each field


def as_augment(given: Augment | Mapping[str, Any]) -> Augment:
    """Make settings of a dictionary, as a YAML file has it.

    >>> as_augment({"mixup": 0.8}).mixup
    0.8

    Raises:
        UserError: If there is no such setting, with similar names.
    """
    if isinstance(given, Augment):
        return given
    known = [field.name for field in fields(Augment)]
    for name in given:
        if name not in known:
            raise UserError(f"augment has no {name!r}{did_you_mean(str(name), known)}; it has {', '.join(known)}")
    return Augment(**given)


def takes_dictionary(init: Callable[P, None]) -> Callable[P, None]:
    """Let a constructor take its keyword ``augment`` as a dictionary."""

    @functools.wraps(init)
    def with_settings(*args: P.args, **options: P.kwargs) -> None:
        if isinstance(given := options.get("augment"), Mapping):
            options["augment"] = as_augment(given)
        init(*args, **options)

    return with_settings
