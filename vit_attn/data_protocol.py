"""Protocols of a data module, as the task, the callbacks and the evaluation of maps need it.

Your own data module needs the members of those that you use; :class:`vit_attn.data.ImageData` has all:
:class:`ClassificationData` to train, :class:`ProbeData` to draw attention, :class:`TrainingImages` to whiten patches.
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
    """A data module that a classifier can train on; it also has the loaders of a ``LightningDataModule``."""

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
