"""Protocols of a data module, as the task, the callbacks and the evaluation of maps need it.

A data module of one's own needs loaders, ``train_dataloader`` and ``val_dataloader``, whose batches are (images,
labels): normalised floats (B, channels, height, width), and class indices (B,) or fractions of classes (B, classes).
All else is optional, and found out or left out where it is missing:

- ``class_names``, for captions, reports and the labels that ``predict`` writes; else ``classes`` of the data set, else
  numbers;
- ``num_classes``, ``img_size`` and ``in_chans``, for the size of the network on the command line; else the number of
  names, and the size of the first image;
- ``mean`` and ``std`` by channel for pixels in [0, 1], by which a checkpoint lets ``predict``, ``attend`` and
  ``open_network`` normalise image files, and pictures get their colours; without them a checkpoint takes tensors only;
- ``class_weights``, for the loss on the command line; else all the same;
- ``seed``, which the command line sets from ``seed_everything``, if the constructor takes it;
- ``probe`` and ``normalize``, for the images whose attention is logged; else images from all over the validation set;
- ``training_images`` and ``normalize``, for ``Classifier(whiten=...)``, which is refused without them.

:class:`ClassificationData`, :class:`ProbeData` and :class:`TrainingImages` have these members with their types;
:class:`vit_attn.data.ImageData` has all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class GroundTruth:
    """Patches of one image that are known to matter, by name, for the pointing game.

    Args:
        regions: Patches by name, numbered row by row from 0 in ``grid``.
        grid: Rows and columns in which the patches are numbered; a network may have a finer grid.
        answer: The region that determines the class, which a faithful map should point at. It may be missing in some
            images, which then do not count.
        edges: Pairs of regions, (query, key), whose attention is knocked out when a network is judged.
    """

    regions: Mapping[str, tuple[int, ...]]
    grid: tuple[int, int]
    answer: str
    edges: tuple[tuple[str, str], ...] = field(default=())


@runtime_checkable
class ProbeImages(Protocol):
    """Validation images whose attention is logged again and again while a network trains."""

    @property
    def images(self) -> UInt8[Tensor, "B C height width"]:
        """Pixels before normalisation."""
        ...

    @property
    def labels(self) -> Int64[Tensor, " B"]:
        """Class indices."""
        ...

    @property
    def ground_truth(self) -> Sequence[GroundTruth] | None:
        """Known patches of each image, for data sets that have them."""
        ...


@runtime_checkable
class ProbeData(Protocol):
    """A data module whose images can be drawn with the attention on them."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes by index."""
        ...

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        ...

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        ...

    def probe(self, count: int) -> ProbeImages:
        """Return the same ``count`` validation images at every call and in every run."""
        ...

    def normalize(self, images: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """Normalise pixels, as the network takes them."""
        ...


@runtime_checkable
class TrainingImages(Protocol):
    """A data module whose training images can be seen without augmentation, for a start that depends on them."""

    def training_images(self, count: int) -> UInt8[Tensor, "B C height width"]:
        """Return at most ``count`` training images, the same ones at every call and in every run."""
        ...

    def normalize(self, images: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """Normalise pixels, as the network takes them."""
        ...


@runtime_checkable
class ClassificationData(Protocol):
    """A data module that says what a network needs to know; it also has the loaders of a ``LightningDataModule``."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        ...

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        ...
