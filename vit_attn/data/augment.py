"""Random augmentation of a batch on its device, with parameters of its own for every image.

Parameters are drawn for the whole batch of all ranks from (seed, step) and sliced by rank, so that they depend neither
on what was drawn before nor on how many workers or ranks there are.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vit_attn.errors import UserError

Images = Float[Tensor, "B C height width"]


@dataclass(frozen=True)
class Augment:
    """What happens to training images; everything is off at 0, and as the data set has it where it is not given.

    Args:
        crop_padding: Pixels of black border from which a random crop of the image's size is taken.
        flip: Share of the images that are mirrored left to right.
        rand_augment: Magnitude, 1 to 30, of two random operations an image (arXiv 1909.13719), done by torchvision in
            the loader's workers: give ``num_workers`` for it.
        erase: Share of the images in which a box is erased (arXiv 1708.04896).
        mixup: Beta parameter of blending each image with another (arXiv 1710.09412).
        cutmix: Beta parameter of pasting a box of another image (arXiv 1905.04899). With mixup, half the images each.
        mix_until: Share of the training during which mixup and cutmix act.
    """

    crop_padding: int | None = None
    flip: float | None = None
    rand_augment: int | None = None
    erase: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    mix_until: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done, by name."""
        for name, low, high in (
            ("crop_padding", 0, 1024),
            ("flip", 0, 1),
            ("rand_augment", 0, 30),
            ("erase", 0, 1),
            ("mixup", 0, 100),
            ("cutmix", 0, 100),
            ("mix_until", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"augment.{name} must be in {low}..{high}, got {value}")

    def over(self, base: "Augment") -> "Augment":
        """These settings, and those of ``base`` where they are not given.

        >>> Augment(flip=0.1).over(Augment(crop_padding=4, flip=0.5)).crop_padding
        4
        """
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})


NOT_GIVEN = Augment()
OFF = Augment(crop_padding=0, flip=0.0, rand_augment=0, erase=0.0, mixup=0.0, cutmix=0.0, mix_until=1.0)


class Draws:
    """Random parameters for the images of one step: ``batch_size`` of them, out of those of all ranks.

    Args:
        address: What the draws depend on, such as (seed, step); nothing else has a say.
        batch_size: Images on this rank.
        rank: Which share of the global batch this is.
        world_size: Number of ranks, each with ``batch_size`` images.
        device: Where the parameters go.
    """

    def __init__(
        self,
        address: tuple[int, ...],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rng, self.batch_size, self.rank, self.device = np.random.default_rng(address), batch_size, rank, device
        self.total = batch_size * world_size

    def integers(self, low: int, high: int) -> Int64[Tensor, " B"]:
        """Uniform in low..high, both included."""
        return self._local(self.rng.integers(low, high, self.total, endpoint=True))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " B"]:
        """Uniform in [low, high)."""
        return self._local(self.rng.uniform(low, high, self.total).astype(np.float32))

    def beta(self, alpha: float) -> Float[Tensor, " B"]:
        """From Beta(alpha, alpha)."""
        return self._local(self.rng.beta(alpha, alpha, self.total).astype(np.float32))

    def _local(self, values: np.ndarray) -> Tensor:
        start = self.rank * self.batch_size
        return torch.from_numpy(values[start : start + self.batch_size]).to(self.device, non_blocking=True)


def crop_and_flip(
    images: UInt8[Tensor, "B C height width"], padding: int, flip: float, draws: Draws
) -> UInt8[Tensor, "B C height width"]:
    """Take a random crop of the padded image and mirror a share of the images, in one gather."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + draws.integers(0, 2 * padding)[:, None]
    cols = torch.arange(width, device=images.device).expand(len(images), -1)
    cols = torch.where((draws.uniform() < flip)[:, None], cols.flip(-1), cols) + draws.integers(0, 2 * padding)[:, None]
    padded = F.pad(images, (padding,) * 4)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def erase(images: Images, share: float, draws: Draws) -> Images:
    """Set a box of up to a third of the area to 0, the mean of normalised images, in a share of the images."""
    boxes = random_boxes(draws.uniform(0.02, 1 / 3), (images.shape[-2], images.shape[-1]), draws)
    chosen = (draws.uniform() < share)[:, None, None, None]
    return images.masked_fill(boxes & chosen, 0.0)


def mix(
    images: Images, labels: Int64[Tensor, " B"], num_classes: int, mixup: float, cutmix: float, draws: Draws
) -> tuple[Images, Float[Tensor, "B classes"]]:
    """Mix each image with one other by mixup or cutmix; the targets are mixed by the same shares.

    Both are Beta parameters, 0 for not at all; with both, half of the images each.
    """
    targets = F.one_hot(labels, num_classes).float()
    shift = draws.integers(1, max(1, len(images) - 1))[0]  # the same for all, so that every image is used twice
    other = (torch.arange(len(images), device=images.device) + shift) % len(images)
    cut = draws.uniform() < (cutmix > 0) * (0.5 if mixup > 0 else 1.0)
    own = torch.where(cut, draws.beta(cutmix or 1.0), draws.beta(mixup or 1.0))
    boxes = random_boxes(1 - own, (images.shape[-2], images.shape[-1]), draws)
    own = torch.where(cut, 1 - boxes.float().mean(dim=(1, 2, 3)), own)  # a box at the border is cut short
    share = torch.where(cut[:, None, None, None], (~boxes).float(), own[:, None, None, None]).to(images.dtype)
    return share * images + (1 - share) * images[other], own[:, None] * targets + (1 - own[:, None]) * targets[other]


def random_boxes(areas: Float[Tensor, " B"], size: tuple[int, int], draws: Draws) -> Bool[Tensor, "B 1 height width"]:
    """Boxes of the image's shape with the given shares of its area around random centres, cut at the border."""
    height, width = size
    half = areas.sqrt() / 2
    inside = []
    for length in (height, width):
        centre = draws.uniform(0, length)
        start, stop = (centre - half * length).round(), (centre + half * length).round()
        position = torch.arange(length, device=areas.device)
        inside.append((position >= start[:, None]) & (position < stop[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
