"""Streams of images, read sequentially through timm's readers."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from timm.data import create_dataset
from timm.data.readers.shared_count import SharedCount
from torch import Tensor

from vit_attn.data.images.image_file import as_picture, fit_picture
from vit_attn.errors import UserError, missing_package

PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow-datasets"}
"""Package that reads the data sets of each of timm's prefixes."""


class Epoch(SharedCount):
    """The epoch as a plain number: timm's own is shared memory, which cannot be sent to a spawned worker.

    Args:
        epoch: The number; workers are started again for each epoch, and receive it then.
    """

    value = 0

    def __init__(self, epoch: int = 0) -> None:
        self.value = epoch


def open_timm(name: str, root: str | None, split: str, **options: Any) -> Any:
    """Open a data set by ``timm.data.create_dataset``.

    Raises:
        UserError: If a package is missing, or if the data set cannot be opened.
    """
    prefix, log = name.partition("/")[0].lower(), logging.getLogger("timm.data.readers.reader_wds")
    before = log.level
    log.setLevel(logging.ERROR)  # it warns about a missing list of files, which we pass
    mode = "RGB" if prefix == "tfds" else ""  # whose reader needs it; the others we convert, without clipping 16 bits
    try:
        return create_dataset(name, root=root, split=split, input_img_mode=mode, **options)
    except ImportError as error:
        raise missing_package(name, PACKAGES[prefix]) from error
    except Exception as error:  # of the hub's and its readers' many kinds
        reason = _reason(error)
        if "install" in reason:
            raise missing_package(name, PACKAGES[prefix]) from error
        raise UserError(f"{name} cannot be opened, split {split!r}: {reason}") from error
    finally:
        log.setLevel(before)


@dataclass(frozen=True)
class Stream:
    """A split that can only be read sequentially.

    Args:
        name: The data set, with timm's prefix.
        root: Folder of its files, or of their cache.
        split: The reader's name of the split.
        count: Number of images.
        download: Whether missing files may be downloaded.
        bits: Bits that grey pictures of more than 8 use.
    """

    name: str
    root: str | None
    split: str
    count: int
    download: bool = False
    bits: int | None = None

    @property
    def repeats_its_order(self) -> bool:
        """Tell if an epoch that is read again has the same order, which TensorFlow's shuffling does not guarantee."""
        return not self.name.lower().startswith("tfds")

    def max_workers(self, ranks: int) -> int | None:
        """Most workers per rank that each get a tar file, if workers are given whole files; else None.

        Raises:
            UserError: If a rank would get no file.
        """
        if not self.name.lower().startswith("wds"):
            return None
        files = self.split.count("::") + 1
        if files < ranks:
            raise UserError(
                f"{self.name} has {files} tar files for training, fewer than the {ranks} devices, which are "
                "given whole files: write more and smaller ones, or set loader to memory"
            )
        return files // ranks

    def open(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:
        """Open timm's data set: for training shuffled by seed and epoch and sharded by rank, else all of it."""
        options = {"is_training": training, "batch_size": batch_size, "seed": seed, "num_samples": self.count}
        if self.name.lower().startswith("tfds"):
            options.pop("num_samples")
        opened = open_timm(self.name, self.root, self.split, download=self.download, **options)
        for name in [name for name, each in vars(opened.reader).items() if isinstance(each, SharedCount)]:
            setattr(opened.reader, name, Epoch())
        if not training:
            opened.reader.dist_rank, opened.reader.dist_num_replicas = 0, 1
        return opened

    def first(
        self, count: int, size: tuple[int, int], channels: int, skip_corrupt: bool = False
    ) -> tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]:
        """Decode the first images.

        Args:
            count: Number of images.
            size: Height and width in pixels.
            channels: 3 for colour, 1 for grey.
            skip_corrupt: Whether corrupt images are left out.

        Raises:
            UserError: If an image is corrupt and is not to be left out, or if none can be read.
        """
        images = torch.empty(count, channels, *size, dtype=torch.uint8)
        labels = []
        for picture, label in self.pictures(count, channels, skip_corrupt):
            images[len(labels)] = torch.from_numpy(fit_picture(picture, size)).permute(2, 0, 1)
            labels.append(label)
        return images[: len(labels)], torch.tensor(labels)

    def pictures(self, count: int, channels: int, skip_corrupt: bool = False) -> Iterator[tuple[Image.Image, int]]:
        """Yield the first pictures, in colour or in grey, and their labels.

        Args:
            count: Number of images.
            channels: 3 for colour, 1 for grey.
            skip_corrupt: Whether corrupt images are left out.

        Raises:
            UserError: If an image is corrupt and is not to be left out, or if none can be read.
        """
        none = True
        for number, (picture, label) in enumerate(islice(read_items(self.open(), self.name), count)):
            try:
                whole = self.convert(picture, channels, f"image {number + 1}")
            except UserError:
                if not skip_corrupt:
                    raise
                continue
            none = False
            yield whole, int(label)
        if none:
            raise UserError(f"{self.name}, split {self.split!r}: no image can be read")

    def convert(self, picture: Any, channels: int, name: str = "an image") -> Image.Image:
        """Convert an item of the reader to a picture, in colour or in grey."""
        return as_picture(
            lambda: picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture)),
            channels,
            f"{name} of {self.name}",
            bits=self.bits,
        )


def read_items(items: Iterable[tuple[Any, Any]], name: str) -> Iterator[tuple[Any, Any]]:
    """Yield the items of a reader; its failure becomes a one-line error."""
    try:
        yield from items
    except Exception as error:  # of the readers' many kinds
        raise UserError(f"{name} cannot be read to its end: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
