"""Splits of a data set: labels at hand, pictures decoded or still in their files."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import ExifTags, Image
from torch import Tensor

from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.image_file import as_picture, depth_of, open_file
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.data_protocol import GroundTruth

Whole = UInt8[Tensor, "C _ _"]


class ImageList:
    """Pictures that are read one at a time, by index."""

    bits: int | None = None
    """Those that grey pictures of more than 8 use; None for as many as hold each picture's own values."""

    def __len__(self) -> int:
        """Number of pictures."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What a message calls the picture: its file."""
        raise NotImplementedError

    def key(self, index: int) -> str:
        """By what the picture is known wherever the data set lies: its file and folder, or its number."""
        return str(index)

    def read(self, index: int, channels: int = 3, least: int | None = None) -> Image.Image:
        """The picture, upright, in colour or in grey.

        Args:
            index: Which one.
            channels: 3 for colour, 1 for grey.
            least: Shorter side, in pixels, that is enough.

        Raises:
            UserError: If it cannot be read; it is named.
        """
        return as_picture(lambda: self._open(index), channels, self.name(index), least, self.bits)

    def depth(self, index: int) -> int | None:
        """Bits that a grey picture of more than 8 uses; None of any other."""
        return depth_of(lambda: self._open(index))

    def of_bits(self, bits: int | None) -> "ImageList":
        """The same, read by another depth."""
        other = copy.copy(self)
        other.bits = bits
        return other

    def size(self, index: int, least: int) -> tuple[int, int]:
        """Height and width of what :meth:`read` gives; of a file no more than its header is decoded.

        Args:
            index: Which one.
            least: Shorter side, in pixels, that is enough.
        """
        with self._open(index) as picture:
            picture.draft(None, (least, least))
            lies = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (picture.width, picture.height) if lies else (picture.height, picture.width)

    def take(self, indices: np.ndarray) -> "ImageList":
        """Some of them, in that order."""
        raise NotImplementedError

    def _open(self, index: int) -> Image.Image:
        raise NotImplementedError


class ImageFileList(ImageList):
    """Pictures in files.

    Args:
        paths: The files.
        root: Where the data set lies; what a picture is known by does not depend on it.
    """

    def __init__(self, paths: Sequence[str | Path] | np.ndarray, root: Path | None = None) -> None:
        self.root = root
        self.paths = np.array([str(path) for path in paths], dtype=np.str_)  # an array, which workers share

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def name(self, index: int) -> str:
        """The file."""
        return str(self.paths[index])

    def key(self, index: int) -> str:
        """The way to the file from the root of the data set."""
        return Path(os.path.relpath(self.name(index), self.root)).as_posix()

    def keys(self) -> list[str]:
        """Those of all files, faster."""
        above = "" if self.root is None else os.path.join(str(self.root), "")
        if not all(path.startswith(above) for path in self.paths.tolist()):
            return [self.key(index) for index in range(len(self))]
        return [path[len(above) :].replace(os.sep, "/") for path in self.paths.tolist()]

    def take(self, indices: np.ndarray) -> ImageList:
        """Some of the files."""
        return ImageFileList(self.paths[indices], self.root).of_bits(self.bits)

    def _open(self, index: int) -> Image.Image:
        return open_file(self.name(index))


class ItemImageList(ImageList):
    """Pictures that a data set hands out.

    Args:
        open_item: Opens the picture of an item by its number.
        label: What messages call the data set.
        indices: Which of its items.
    """

    def __init__(self, open_item: Callable[[int], Image.Image], label: str, indices: np.ndarray) -> None:
        self.open_item, self.label, self.indices = open_item, label, indices

    def __len__(self) -> int:
        """Number of items."""
        return len(self.indices)

    def name(self, index: int) -> str:
        """The number of the item."""
        return f"image {self.indices[index]} of {self.label}"

    def take(self, indices: np.ndarray) -> ImageList:
        """Some of the items."""
        return ItemImageList(self.open_item, self.label, self.indices[indices]).of_bits(self.bits)

    def _open(self, index: int) -> Image.Image:
        return self.open_item(int(self.indices[index]))


class TensorImageList(ImageList):
    """Pictures of one size that are in memory.

    Args:
        images: Their pixels.
    """

    def __init__(self, images: UInt8[Tensor, "B C height width"]) -> None:
        self.images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def name(self, index: int) -> str:
        """The number of the image, from 1."""
        return f"image {index + 1}"

    def take(self, indices: np.ndarray) -> "TensorImageList":
        """Some of the images."""
        return TensorImageList(self.images[torch.from_numpy(indices)])

    def _open(self, index: int) -> Image.Image:
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


class DecodedImageList:
    """Pictures of unlike sizes in memory.

    Args:
        pixels: Those of each.
    """

    def __init__(self, pixels: Sequence[Whole]) -> None:
        self.pixels = list(pixels)

    def take(self, indices: np.ndarray) -> "DecodedImageList":
        """Some of the pictures."""
        return DecodedImageList([self.pixels[index] for index in indices])


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Args:
        images: Decoded pixels, or None while the pictures are still to be read.
        labels: Class indices.
        ground_truth: ``ground_truth(i)`` has the patches of an image that are known to matter, where they are known.
        pictures: Where the images are read from while they are not decoded; afterwards it still has their names.
        class_names: Names of the classes, where only the files tell them.
        stream: Where the images come from one after another; ``labels`` may then be empty until they are decoded.
        whole: The pictures in their own sizes, of which training takes random parts; ``images`` are their centres.
        held_out: Whether the images were held out of those for training, since the data set has no such split.
    """

    images: UInt8[Tensor, "B C height width"] | None
    labels: Int64[Tensor, " B"]
    ground_truth: Callable[[int], GroundTruth] | None = None
    pictures: ImageList | None = None
    class_names: tuple[str, ...] | None = None
    stream: Stream | None = None
    whole: DecodedImageList | None = None
    held_out: bool = False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels) if self.stream is None else self.stream.count

    def take(self, indices: np.ndarray) -> "Split":
        """Some of the images, in that order."""
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return replace(
            self,
            images=None if self.images is None else self.images[chosen],
            labels=self.labels[chosen],
            ground_truth=None if self.ground_truth is None else partial(_at, self.ground_truth, indices),
            pictures=None if self.pictures is None else self.pictures.take(indices),
            whole=None if self.whole is None else self.whole.take(indices),
        )

    def of_bits(self, bits: int | None) -> "Split":
        """The split, its pictures read by that depth."""
        pictures, stream = self.pictures and self.pictures.of_bits(bits), self.stream
        return replace(self, pictures=pictures, stream=stream and replace(stream, bits=bits))

    def numbered(self, numbers: Int64[Tensor, " classes"], class_names: tuple[str, ...]) -> "Split":
        """The split with its classes numbered otherwise.

        Args:
            numbers: The new number of each class.
            class_names: Names of the classes by their new numbers.
        """
        return replace(self, labels=numbers[self.labels], class_names=self.class_names and class_names)

    def decoded(self) -> UInt8[Tensor, "B C height width"]:
        """Pixels of all images."""
        if self.images is None:
            raise RuntimeError("the pictures of this split are still to be read")
        return self.images

    def to_read(self) -> ImageList:
        """The images one at a time, decoded or not."""
        return self.pictures if self.images is None and self.pictures is not None else TensorImageList(self.decoded())


@dataclass(frozen=True)
class DatasetInfo:
    """A data set.

    Args:
        class_names: Names of the classes by index.
        img_size: Height and width of the images in pixels, where all have the same.
        mean: Mean of the training images by channel, of pixels in [0, 1], where it is known.
        std: Standard deviation of the training images by channel, of pixels in [0, 1], where it is known.
        load: From the folder of the files and whether they may be downloaded, to ``train``, ``val`` and ``test``.
        augment: What training images stand without losing their class.
        in_chans: Channels of the images, 3 for colour and 1 for grey.
        remarks: What the user must know of how the files were understood, a phrase each.
    """

    class_names: tuple[str, ...]
    img_size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    load: Callable[[Path, bool], dict[str, Split]]
    augment: Augment = OFF
    in_chans: int = 3
    remarks: list[str] = field(default_factory=list)


def _at(ground_truth: Callable[[int], GroundTruth], indices: np.ndarray, index: int) -> GroundTruth:
    return ground_truth(int(indices[index]))
