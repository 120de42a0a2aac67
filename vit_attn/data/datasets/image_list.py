"""Lists of pictures that are decoded one at a time: from files, from a data set's items, or from memory."""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image
from torch import Tensor

from vit_attn.data.images.image_file import as_picture, depth_of, open_file

FullSizeImage = UInt8[Tensor, "C _ _"]
"""Pixels of an image in a size of its own."""


class ImageList:
    """Pictures that are decoded one at a time, by index."""

    bits: int | None = None
    """Bits that grey pictures of more than 8 use; None for those that hold each picture's own values."""

    def __len__(self) -> int:
        """Number of pictures."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Name of a picture for messages: its file."""
        raise NotImplementedError

    def key(self, index: int) -> str:
        """Identifier of a picture wherever the data set is stored: its path in the data set, or its number."""
        return str(index)

    def read(self, index: int, channels: int = 3, min_side: int | None = None) -> Image.Image:
        """Decode a picture, upright, in colour or in grey.

        Args:
            index: Index of the picture.
            channels: 3 for colour, 1 for grey.
            min_side: Shorter side, in pixels, that is enough.

        Raises:
            UserError: If it cannot be read; the message has its name.
        """
        return as_picture(lambda: self._open(index), channels, self.name(index), min_side, self.bits)

    def depth(self, index: int) -> int | None:
        """Bits that a grey picture of more than 8 uses; None for any other."""
        return depth_of(lambda: self._open(index))

    def of_bits(self, bits: int | None) -> "ImageList":
        """The same pictures, read with another bit depth."""
        other = copy.copy(self)
        other.bits = bits
        return other

    def size(self, index: int, min_side: int) -> tuple[int, int]:
        """Height and width of what :meth:`read` returns; of a file only the header is decoded.

        Args:
            index: Index of the picture.
            min_side: Shorter side, in pixels, that is enough.
        """
        with self._open(index) as picture:
            picture.draft(None, (min_side, min_side))
            transposed = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (picture.width, picture.height) if transposed else (picture.height, picture.width)

    def take(self, indices: np.ndarray) -> "ImageList":
        """The pictures at some indices, in that order."""
        raise NotImplementedError

    def _open(self, index: int) -> Image.Image:
        raise NotImplementedError


class ImageFileList(ImageList):
    """Pictures in files.

    Args:
        paths: The files.
        root: Folder of the data set; keys of pictures are paths relative to it.
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
        """Path of the file relative to the root of the data set."""
        return Path(os.path.relpath(self.name(index), self.root)).as_posix()

    def keys(self) -> list[str]:
        """Keys of all files, computed faster than one by one."""
        above = "" if self.root is None else os.path.join(str(self.root), "")
        if not all(path.startswith(above) for path in self.paths.tolist()):
            return [self.key(index) for index in range(len(self))]
        return [path[len(above) :].replace(os.sep, "/") for path in self.paths.tolist()]

    def take(self, indices: np.ndarray) -> ImageList:
        """The files at some indices."""
        return ImageFileList(self.paths[indices], self.root).of_bits(self.bits)

    def _open(self, index: int) -> Image.Image:
        return open_file(self.name(index))


class ItemImageList(ImageList):
    """Pictures that another library's data set returns by number.

    Args:
        open_item: Opens the picture of an item by its number.
        label: Name of the data set for messages.
        indices: Numbers of the items.
    """

    def __init__(self, open_item: Callable[[int], Image.Image], label: str, indices: np.ndarray) -> None:
        self.open_item, self.label, self.indices = open_item, label, indices

    def __len__(self) -> int:
        """Number of items."""
        return len(self.indices)

    def name(self, index: int) -> str:
        """Number of the item, and the data set."""
        return f"image {self.indices[index]} of {self.label}"

    def take(self, indices: np.ndarray) -> ImageList:
        """The items at some indices."""
        return ItemImageList(self.open_item, self.label, self.indices[indices]).of_bits(self.bits)

    def _open(self, index: int) -> Image.Image:
        return self.open_item(int(self.indices[index]))


class TensorImageList(ImageList):
    """Pictures of one size in memory.

    Args:
        images: Pixels.
    """

    def __init__(self, images: UInt8[Tensor, "B C height width"]) -> None:
        self.images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def name(self, index: int) -> str:
        """Number of the image, from 1."""
        return f"image {index + 1}"

    def take(self, indices: np.ndarray) -> "TensorImageList":
        """The images at some indices."""
        return TensorImageList(self.images[torch.from_numpy(indices)])

    def _open(self, index: int) -> Image.Image:
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


class DecodedImageList:
    """Decoded pictures of different sizes.

    Args:
        pixels: Pixels of each picture.
    """

    def __init__(self, pixels: Sequence[FullSizeImage]) -> None:
        self.pixels = list(pixels)

    def take(self, indices: np.ndarray) -> "DecodedImageList":
        """The pictures at some indices."""
        return DecodedImageList([self.pixels[index] for index in indices])
