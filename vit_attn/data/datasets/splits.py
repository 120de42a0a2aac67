"""Splits of a data set, and the description of a data set."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vit_attn.data.datasets.image_list import DecodedImageList, ImageList, TensorImageList
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.data_protocol import GroundTruth


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Args:
        images: Pixels, or None while the pictures are not decoded.
        labels: Class indices.
        ground_truth: ``ground_truth(i)`` names the patches of image i that are known to matter, if they are known.
        pictures: Where images are read from that are not decoded; afterwards it still has their names.
        class_names: Names of the classes, if they are known from the files only.
        stream: Where the images come from one after another; ``labels`` may be empty until they are decoded.
        full_size: The images in their original sizes, for random crops; ``images`` are their centre crops.
        held_out: Whether the images were held out of the training images, since the data set has no such split.
    """

    images: UInt8[Tensor, "B C height width"] | None
    labels: Int64[Tensor, " B"]
    ground_truth: Callable[[int], GroundTruth] | None = None
    pictures: ImageList | None = None
    class_names: tuple[str, ...] | None = None
    stream: Stream | None = None
    full_size: DecodedImageList | None = None
    held_out: bool = False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels) if self.stream is None else self.stream.count

    def take(self, indices: np.ndarray) -> "Split":
        """The images at some indices, in that order."""
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return replace(
            self,
            images=None if self.images is None else self.images[chosen],
            labels=self.labels[chosen],
            ground_truth=None if self.ground_truth is None else partial(_at, self.ground_truth, indices),
            pictures=None if self.pictures is None else self.pictures.take(indices),
            full_size=None if self.full_size is None else self.full_size.take(indices),
        )

    def of_bits(self, bits: int | None) -> "Split":
        """The split with its pictures read with another bit depth."""
        pictures, stream = self.pictures and self.pictures.of_bits(bits), self.stream
        return replace(self, pictures=pictures, stream=stream and replace(stream, bits=bits))

    def with_classes(self, indices: Int64[Tensor, " classes"], class_names: tuple[str, ...]) -> "Split":
        """The split with other class indices.

        Args:
            indices: New index of each class.
            class_names: Names of the classes by their new indices.
        """
        return replace(self, labels=indices[self.labels], class_names=self.class_names and class_names)

    def decoded(self) -> UInt8[Tensor, "B C height width"]:
        """Pixels of all images."""
        if self.images is None:
            raise RuntimeError("the pictures of this split are not decoded")
        return self.images

    def to_read(self) -> ImageList:
        """The images as a list to read from, decoded or not."""
        return self.pictures if self.images is None and self.pictures is not None else TensorImageList(self.decoded())


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set.

    Args:
        class_names: Names of the classes by index.
        img_size: Height and width of the images in pixels, if all have the same.
        mean: Mean of the training images by channel, of pixels in [0, 1], if it is known.
        std: Standard deviation of the training images by channel, of pixels in [0, 1], if it is known.
        load: From the folder of the files, and whether they may be downloaded, to ``train``, ``val`` and ``test``.
        augment: Augmentation that leaves the class of training images as it is.
        in_chans: Channels of the images, 3 for colour and 1 for grey.
        remarks: Remarks for the user on how the files were understood, a phrase each; a ``Doubt`` is a warning.
        needs_files: Whether the data set reads files from its root.
        holds_out: Whether ``load`` holds validation images out of training images, and takes their fraction as
            ``held_out``.
        module: Module of the user's own in which it is registered.
    """

    class_names: tuple[str, ...]
    img_size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    load: Callable[[Path, bool], dict[str, Split]]
    augment: Augment = OFF
    in_chans: int = 3
    remarks: list[str] = field(default_factory=list)
    needs_files: bool = True
    holds_out: bool = False
    module: str | None = None


def _at(ground_truth: Callable[[int], GroundTruth], indices: np.ndarray, index: int) -> GroundTruth:
    return ground_truth(int(indices[index]))
