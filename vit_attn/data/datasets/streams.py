"""Images that come one after another, in the order of their files, through timm's readers."""

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
from vit_attn.errors import UserError

PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow-datasets"}
"""What reads the sets of each prefix of timm's."""


class Epoch(SharedCount):
    """The epoch as a plain number: timm's own is shared memory, which a spawned worker cannot be handed.

    Args:
        epoch: The number; workers are started anew for each epoch, and get it then.
    """

    value = 0

    def __init__(self, epoch: int = 0) -> None:
        self.value = epoch


def open_timm(name: str, root: str | None, split: str, **options: Any) -> Any:
    """What ``timm.data.create_dataset`` opens.

    Raises:
        UserError: If a package is missing, or if the data set cannot be had.
    """
    prefix, log = name.partition("/")[0].lower(), logging.getLogger("timm.data.readers.reader_wds")
    before = log.level
    log.setLevel(logging.ERROR)  # it warns of a missing list of files, which we give it
    mode = "RGB" if prefix == "tfds" else ""  # whose reader has to know; else we convert, without cutting 16 bits off
    try:
        return create_dataset(name, root=root, split=split, input_img_mode=mode, **options)
    except ImportError as error:
        raise UserError(f"{name} needs a package that is not installed: pip install {PACKAGES[prefix]}") from error
    except Exception as error:  # of the hub's and its readers' many kinds
        reason = _reason(error)
        if "install" in reason:
            raise UserError(f"{name} needs a package that is not installed: pip install {PACKAGES[prefix]}") from error
        raise UserError(f"{name} cannot be had, split {split!r}: {reason}") from error
    finally:
        log.setLevel(before)


@dataclass(frozen=True)
class Stream:
    """A split that can be read from its beginning only.

    Args:
        name: The data set, with timm's prefix.
        root: Where it is, or where it is kept.
        split: What the reader calls the split.
        count: Images of it.
        download: Whether missing files may be downloaded.
        bits: Those that grey pictures of more than 8 use.
    """

    name: str
    root: str | None
    split: str
    count: int
    download: bool = False
    bits: int | None = None

    @property
    def repeats_its_order(self) -> bool:
        """Whether an epoch that is read again has the same order; TensorFlow's shuffling promises none."""
        return not self.name.lower().startswith("tfds")

    def most_workers(self, ranks: int) -> int | None:
        """How many workers of each rank get a tar file of their own, where they share out whole files.

        Raises:
            UserError: If a rank would get none.
        """
        if not self.name.lower().startswith("wds"):
            return None
        files = self.split.count("::") + 1
        if files < ranks:
            raise UserError(
                f"{self.name} has {files} tar files for training, fewer than the {ranks} devices, which share out "
                "whole files: write more and smaller ones, or set loader to memory"
            )
        return files // ranks

    def open(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:
        """Timm's data set: for training shuffled by seed and epoch and shared out to the ranks, else all of it."""
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
        self, count: int, size: tuple[int, int], channels: int, skip_damaged: bool = False
    ) -> tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]:
        """Pixels and labels of the first images.

        Args:
            count: How many.
            size: Height and width in pixels.
            channels: 3 for colour, 1 for grey.
            skip_damaged: Whether what cannot be read is left out.

        Raises:
            UserError: If none can be read, or if one cannot that is not to be left out.
        """
        images = torch.empty(count, channels, *size, dtype=torch.uint8)
        labels = []
        for picture, label in self.pictures(count, channels, skip_damaged):
            images[len(labels)] = torch.from_numpy(fit_picture(picture, size)).permute(2, 0, 1)
            labels.append(label)
        return images[: len(labels)], torch.tensor(labels)

    def pictures(self, count: int, channels: int, skip_damaged: bool = False) -> Iterator[tuple[Image.Image, int]]:
        """The first pictures, in colour or in grey, and their labels.

        Args:
            count: How many.
            channels: 3 for colour, 1 for grey.
            skip_damaged: Whether what cannot be read is left out.

        Raises:
            UserError: If none can be read, or if one cannot that is not to be left out.
        """
        none = True
        for number, (picture, label) in enumerate(islice(told(self.open(), self.name), count)):
            try:
                whole = self.picture_of(picture, channels, f"image {number + 1}")
            except UserError:
                if not skip_damaged:
                    raise
                continue
            none = False
            yield whole, int(label)
        if none:
            raise UserError(f"{self.name}, split {self.split!r}: no image can be read")

    def picture_of(self, picture: Any, channels: int, name: str = "an image") -> Image.Image:
        """What the reader gives as a picture, in colour or in grey."""
        return as_picture(
            lambda: picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture)),
            channels,
            f"{name} of {self.name}",
            bits=self.bits,
        )


def told(items: Iterable[tuple[Any, Any]], name: str) -> Iterator[tuple[Any, Any]]:
    """The items of a reader, whose failure is a line."""
    try:
        yield from items
    except Exception as error:  # of the readers' many kinds
        raise UserError(f"{name} cannot be read to its end: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
