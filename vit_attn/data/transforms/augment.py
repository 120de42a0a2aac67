"""Random augmentation of a batch on its device, with parameters of its own for every image.

Parameters are drawn for the whole batch of all ranks from (seed, step) and sliced by rank, so that they depend neither
on what was drawn before nor on how many workers or ranks there are.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8
from torch import Tensor

from vit_attn.data.transforms.ops import resized_crop
from vit_attn.data.transforms.policies import colour_jitter, rand_augment, trivial_augment
from vit_attn.data.transforms.rng import BatchRNG, to_device
from vit_attn.errors import UserError

Images = Float[Tensor, "B C height width"]


@dataclass(frozen=True)
class Augment:
    """What happens to training images; everything is off at 0, and as the data set has it where it is not given.

    Args:
        crop_padding: Pixels of black border from which a random crop of the image's size is taken.
        flip: Share of the images that are mirrored left to right.
        rand_augment: Magnitude, 1 to 30, of two random operations an image (arXiv 1909.13719).
        erase: Share of the images in which a box is erased (arXiv 1708.04896).
        mixup: Beta parameter of blending each image with another (arXiv 1710.09412).
        cutmix: Beta parameter of pasting a box of another image (arXiv 1905.04899). With mixup, half the images each.
        mix_until: Share of the training during which mixup and cutmix act.
        flip_alternating: Whether each image is mirrored in every other epoch, half of them in the first, instead of
            in a random share of the epochs (arXiv 2404.00498).
        trivial_augment: Share of the images changed by one random operation of random magnitude (arXiv 2103.10158);
            not with rand_augment.
        colour_jitter: Strength, up to 1: brightness, contrast and saturation change by factors in 1 ± strength, hue by
            up to a quarter of it of the colour circle (arXiv 2002.05709).
        cutout: Side, in pixels, of a square that is erased around a random centre of each image (arXiv 1708.04552).
        random_resized_crop: Least share of the area of a random part of each image, 3:4 to 4:3 in shape, that is
            resized to the whole (arXiv 1409.4842); 0 for none; not with crop_padding.
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
        """Refuse what cannot be done, by name."""
        for name, high in (
            ("crop_padding", 1024),
            ("flip", 1),
            ("rand_augment", 30),
            ("erase", 1),
            ("mixup", 100),
            ("cutmix", 100),
            ("mix_until", 1),
            ("trivial_augment", 1),
            ("colour_jitter", 1),
            ("cutout", 1024),
            ("random_resized_crop", 1),
        ):
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
        """These settings, and those of ``base`` where they are not given; of the two crops, the given one stays.

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


def augment_batch(
    images: UInt8[Tensor, "B C height width"],
    on: Augment,
    normalize: Callable[[Tensor], Images],
    draws: BatchRNG,
    mirrored: Bool[Tensor, " B"] | None = None,
) -> Images:
    """Everything but mixing: what is done to pixels, then ``normalize``, then what erases.

    Args:
        images: Pixels, on any device.
        on: What to do.
        normalize: From pixels to what the network takes; what is erased gets 0 after it, the mean.
        draws: Random parameters of this step.
        mirrored: Which images to mirror, instead of a random share of them.
    """
    if on.random_resized_crop:
        images = resized_crop(images, random_crops(images, on.random_resized_crop, draws))
    if on.crop_padding or on.flip or mirrored is not None:
        images = crop_and_flip(images, on.crop_padding or 0, on.flip or 0.0, draws, mirrored)
    if on.colour_jitter:
        images = colour_jitter(images, on.colour_jitter, draws)
    if on.rand_augment:
        images = rand_augment(images, on.rand_augment, draws)
    if on.trivial_augment:
        images = trivial_augment(images, on.trivial_augment, draws)
    result = normalize(images)
    if on.cutout:
        result = cutout(result, on.cutout, draws)
    return erase(result, on.erase, draws) if on.erase else result


def alternating(addresses: Int64[Tensor, " B"], count: int, seed: int) -> Bool[Tensor, " B"]:
    """Which images are mirrored in this epoch: half of the ``count`` images, and the others in the next.

    Args:
        addresses: Epoch times ``count``, plus index of the image.
        count: Images of the data set.
        seed: Which half is mirrored first.
    """
    return (_halves(count, seed)[addresses % count] + addresses // count) % 2 == 1


@functools.lru_cache(maxsize=2)
def _halves(count: int, seed: int) -> Int64[Tensor, " images"]:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, count))


def crop_and_flip(
    images: UInt8[Tensor, "B C height width"],
    padding: int,
    flip: float,
    draws: BatchRNG,
    mirrored: Bool[Tensor, " B"] | None = None,
) -> UInt8[Tensor, "B C height width"]:
    """Take a random crop of the padded image and mirror a share of the images, or those that are named."""
    count, channels, height, width = images.shape
    top = draws.integers(0, 2 * padding)
    flipped = draws.uniform() < flip if mirrored is None else mirrored
    left = draws.integers(0, 2 * padding)
    both = images.new_zeros(2, count, channels, height + 2 * padding, width + 2 * padding)
    inner = both[..., padding : padding + height, padding : padding + width]
    inner[0].copy_(images)
    inner[1].copy_(images.flip(-1))
    # a crop is one run of memory, less what lies between its rows: so all crops are one gather of whole runs
    _, image, plane, row, _ = both.stride()
    length = (channels - 1) * plane + (height - 1) * row + width
    runs = both.as_strided((both.numel() - length + 1, length), (1, 1))
    each = torch.arange(count, device=images.device)
    starts = (flipped * count + each) * image + top * row + torch.where(flipped, 2 * padding - left, left)
    return runs.index_select(0, starts).as_strided(images.shape, (length, plane, row, 1))


def random_crops(images: UInt8[Tensor, "B C height width"], least: float, draws: BatchRNG) -> Float[Tensor, "B 4"]:
    """Random parts, as :func:`crops_of` draws them, of images of one size."""
    return to_device(crops_of(np.tile(images.shape[-2:], (len(images), 1)), least, draws), images.device)


def crops_of(
    shapes: Int64[np.ndarray, "B 2"], least: float, draws: BatchRNG, tries: int = 10
) -> Float32[np.ndarray, "B 4"]:
    """Top, left, height and width in pixels of a random part of each image, as ``RandomResizedCrop`` draws them.

    Args:
        shapes: Height and width of each image.
        least: Least share of the area.
        draws: Random parameters of this step.
        tries: Parts that are drawn of each image; where none lies in the image, its centre is taken.
    """
    height, width = shapes.T[..., None]
    areas = draws.host(draws.rng.uniform(least, 1.0, (draws.total, tries))) * height * width
    ratios = np.exp(draws.host(draws.rng.uniform(np.log(3 / 4), np.log(4 / 3), (draws.total, tries))))
    widths, heights = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    each, first, none = np.arange(len(shapes)), fits.argmax(axis=1), ~fits.any(axis=1)[:, None]
    most = np.round(np.minimum(shapes, shapes[:, ::-1] * 4 / 3))
    sides = np.where(none, most, np.stack([heights[each, first], widths[each, first]], axis=1))
    spare = shapes - sides
    corners = np.floor(draws.host(draws.rng.uniform(0, 1, (draws.total, 2))) * (spare + 1))
    corners = np.where(none, spare // 2, corners)
    return np.concatenate([corners, sides], axis=1).astype(np.float32)


def erase(images: Images, share: float, draws: BatchRNG) -> Images:
    """Set a box of up to a third of the area to 0, the mean of normalised images, in a share of the images."""
    boxes = random_boxes(draws.uniform(0.02, 1 / 3), (images.shape[-2], images.shape[-1]), draws)
    chosen = (draws.uniform() < share)[:, None, None, None]
    return images.masked_fill(boxes & chosen, 0.0)


def cutout(images: Images, side: int, draws: BatchRNG) -> Images:
    """Set a square around a random pixel of each image to 0, the mean of normalised images; the border cuts it."""
    sides = []
    for length in images.shape[-2:]:
        start = draws.integers(0, length - 1) - side // 2
        sides.append(_between(start, start + side, length))
    return images.masked_fill(_boxes(*sides), 0.0)


def mix(
    images: Images, labels: Int64[Tensor, " B"], num_classes: int, mixup: float, cutmix: float, draws: BatchRNG
) -> tuple[Images, Float[Tensor, "B classes"]]:
    """Mix each image with one other by mixup or cutmix; the targets are mixed by the same shares.

    Both are Beta parameters, 0 for not at all; with both, half of the images each.
    """
    targets = F.one_hot(labels, num_classes).float()
    other = neighbours(len(images), images.device)
    cut = draws.uniform() < (cutmix > 0) * (0.5 if mixup > 0 else 1.0)
    own = torch.where(cut, draws.beta(cutmix or 1.0), draws.beta(mixup or 1.0))
    boxes = random_boxes(1 - own, (images.shape[-2], images.shape[-1]), draws)
    own = torch.where(cut, 1 - boxes.float().mean(dim=(1, 2, 3)), own)  # a box at the border is cut short
    share = torch.where(cut[:, None, None, None], (~boxes).float(), own[:, None, None, None]).to(images.dtype)
    return share * images + (1 - share) * images[other], own[:, None] * targets + (1 - own[:, None]) * targets[other]


def neighbours(count: int, device: torch.device) -> Int64[Tensor, " B"]:
    """The image with which each of a shuffled batch is mixed: its neighbour, in pairs.

    Pairs are the same however many ranks an even batch is dealt to. The last three of an odd one go round in a circle.

    >>> neighbours(4, torch.device("cpu")).tolist(), neighbours(5, torch.device("cpu")).tolist()
    ([1, 0, 3, 2], [1, 0, 3, 4, 2])
    """
    other = torch.arange(count, device=device) ^ 1
    if count % 2 and count > 1:
        other[-2] = count - 1
        other[-1] = count - 3
    elif count == 1:
        other[0] = 0
    return other


def random_boxes(
    areas: Float[Tensor, " B"], size: tuple[int, int], draws: BatchRNG
) -> Bool[Tensor, "B 1 height width"]:
    """Boxes of the image's shape with the given shares of its area around random centres, cut at the border."""
    height, width = size
    half = areas.sqrt() / 2
    sides = []
    for length in (height, width):
        centre = draws.uniform(0, length)
        sides.append(_between((centre - half * length).round(), (centre + half * length).round(), length))
    return _boxes(*sides)


def _between(start: Shaped[Tensor, " B"], stop: Shaped[Tensor, " B"], length: int) -> Bool[Tensor, "B length"]:
    position = torch.arange(length, device=start.device)
    return (position >= start[:, None]) & (position < stop[:, None])


def _boxes(rows: Bool[Tensor, "B height"], cols: Bool[Tensor, "B width"]) -> Bool[Tensor, "B 1 height width"]:
    return (rows[:, :, None] & cols[:, None, :])[:, None]
