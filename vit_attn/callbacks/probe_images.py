"""Probe images of any data: those of a data module that has them, else images from all over its validation set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from vit_attn.data_protocol import GroundTruth, ProbeData, ProbeImages
from vit_attn.errors import UserError
from vit_attn.training.data_members import class_names_of, mean_std_of, spread_images


@dataclass(frozen=True)
class LabelledImages:
    """Pixels and labels, a :class:`~vit_attn.data_protocol.ProbeImages` without ground truth.

    Args:
        images: Pixels in 0..255.
        labels: Class indices; -1 where unknown.
    """

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]

    @property
    def ground_truth(self) -> Sequence[GroundTruth] | None:
        """No patches are known to matter."""
        return None


@dataclass(frozen=True)
class Scale:
    """Relation of normalised images and the pixels in [0, 1] that are shown: pixels = images * std + mean.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    mean: Float[Tensor, "C 1 1"]
    std: Float[Tensor, "C 1 1"]

    @classmethod
    def of(
        cls, images: Float[Tensor, "B C height width"], mean_std: tuple[Sequence[float], Sequence[float]] | None
    ) -> "Scale":
        """Make the scale of a known mean and standard deviation; else images in [0, 1] are pixels, and others spread.

        Args:
            images: Normalised images.
            mean_std: Mean and standard deviation by channel.

        Raises:
            UserError: If these are of another number of channels.
        """
        channels = images.shape[1]
        if mean_std is not None:
            if {len(each) for each in mean_std} != {channels}:
                raise UserError(f"mean and std must be one a channel, of {channels}, got {mean_std}")
            mean, std = (torch.tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in mean_std)
            return cls(mean, std)
        low, high = images.min().item(), images.max().item()
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        spread = max(high - low, 1e-6)
        return cls(torch.full((channels, 1, 1), -low / spread), torch.full((channels, 1, 1), 1 / spread))

    def pixels(self, images: Float[Tensor, "B C height width"]) -> UInt8[Tensor, "B C height width"]:
        """Undo the normalisation, for pictures."""
        shown = images.float() * self.std.to(images.device) + self.mean.to(images.device)
        return (255 * shown.nan_to_num().clamp(0, 1)).round().to(torch.uint8)

    def normalize(self, pixels: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """Normalise pixels, as the loader did."""
        return (pixels.float() / 255 - self.mean.to(pixels.device)) / self.std.to(pixels.device)


class LoaderProbe:
    """Probe images from a loader: a :class:`~vit_attn.data_protocol.ProbeData` of data that has no ``probe``.

    The images are rounded to 256 levels, as those of files are.

    Args:
        data: Data module, whose ``class_names``, ``mean`` and ``std`` are used if it has them; or None.
        loader: Loader of validation images, else of training images.
        user: Name of the callback that needs them, for messages.

    Raises:
        UserError: If the loader gives no such images.
    """

    def __init__(self, data: object, loader: Any, user: str) -> None:
        self.loader = loader
        self.class_names = class_names_of(data) or class_names_of(loader) or ()
        first, _ = spread_images(loader, 8)
        self.in_chans, self.img_size = first.shape[1], (first.shape[2], first.shape[3])
        if self.in_chans not in (1, 3):
            raise UserError(f"{user} draws images of 1 or 3 channels, and the data has {self.in_chans}")
        known = mean_std_of(data)
        self.scale = Scale.of(first, known)
        if known is None:
            rank_zero_info(
                f"{user}: {len(first)} images from all over the data are shown from darkest to brightest value; give "
                "the data module `mean` and `std` for their true colours"
            )
        self._found: dict[int, LabelledImages] = {}

    def probe(self, count: int) -> ProbeImages:
        """Return the same images at every call."""
        if count not in self._found:
            images, labels = spread_images(self.loader, count)
            self._found[count] = LabelledImages(self.scale.pixels(images), labels)
        return self._found[count]

    def normalize(self, images: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """Normalise pixels, as the loader did."""
        return self.scale.normalize(images)


def probe_data(trainer: L.Trainer, user: str) -> ProbeData:
    """Return the trainer's data module if it has probe images, else images from its validation or training loader.

    Args:
        trainer: Trainer with its data.
        user: Name of the callback that needs them, for messages.

    Raises:
        UserError: If there are none.
    """
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ProbeData):
        return data
    for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.fit_loop):
        source = loop._data_source
        if source.is_defined() and (loader := source.dataloader()):
            return LoaderProbe(data, loader, user)
    raise UserError(f"{user} needs images to draw: give trainer.fit loaders, or a data module with val_dataloader")
