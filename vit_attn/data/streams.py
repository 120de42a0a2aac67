"""Images that come one after another, in the order of their files, through timm's readers."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from timm.data import create_dataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from vit_attn.data.memory import Read
from vit_attn.data.pictures import as_picture, fit_picture
from vit_attn.errors import UserError

PACKAGES = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow-datasets"}
"""What reads the sets of each prefix of timm's."""
Item = tuple[Tensor, int, str | None]
"""Pixels, label, and what is wrong with the image."""


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
    """

    name: str
    root: str | None
    split: str
    count: int
    download: bool = False

    def open(self, training: bool = False, batch_size: int = 1, seed: int = 0) -> Any:
        """Timm's data set, shuffled by seed and epoch for training; it shares itself out to workers and ranks."""
        options = {"is_training": training, "batch_size": batch_size, "seed": seed, "num_samples": self.count}
        if self.name.lower().startswith("tfds"):
            options.pop("num_samples")
        return open_timm(self.name, self.root, self.split, download=self.download, **options)

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
        for number, (picture, label) in enumerate(islice(_told(self.open(), self.name), count)):
            try:
                pixels = fit_picture(_picture(picture, channels, f"image {number} of {self.name}"), size)
            except UserError:
                if not skip_damaged:
                    raise
                continue
            images[len(labels)] = torch.from_numpy(pixels).permute(2, 0, 1)
            labels.append(int(label))
        if not labels:
            raise UserError(f"{self.name}, split {self.split!r}: no image can be read")
        return images[: len(labels)], torch.tensor(labels)


class StreamImages(IterableDataset):
    """The images of a stream, transformed one by one where they are read; what cannot be read ends it, and is told.

    Args:
        stream: The split.
        transform: From a picture to pixels, with torch's randomness of the worker.
        channels: 3 for colour, 1 for grey.
        options: ``training``, ``batch_size`` and ``seed``, as :meth:`Stream.open` takes them.
    """

    def __init__(self, stream: Stream, transform: Callable[[Image.Image], Tensor], channels: int, **options: Any):
        self.stream, self.transform, self.channels = stream, transform, channels
        self.items, self.batch_size = stream.open(**options), options.get("batch_size", 1)

    def __iter__(self) -> Iterator[Item]:
        """Pixels and label of each image, and what is wrong with it."""
        name = self.stream.name
        try:
            for picture, label in _told(self.items, name):
                yield self.transform(_picture(picture, self.channels, f"an image of {name}")), int(label), None
        except UserError as error:  # raised in a worker, its traceback would be all that the user sees
            black = self.transform(Image.new("RGB" if self.channels == 3 else "L", (1, 1)))
            yield from repeat((black, 0, str(error)), self.batch_size)  # a part of a batch would be dropped


class StreamLoader(DataLoader):
    """Training batches of a stream.

    Args:
        images: A :class:`StreamImages`.
        epoch: Tells the epoch, by which the reader shuffles.
        seed: By which, with the epoch, the workers are seeded.
        **options: Those of ``DataLoader``.
    """

    def __init__(self, images: Any, epoch: Callable[[], int], seed: int, **options: Any) -> None:
        # lightning cannot know that timm's readers share the images out to the workers themselves
        warnings.filterwarnings("ignore", message=".*IterableDataset. has .__len__. defined")
        self.draws = torch.Generator()
        super().__init__(images, drop_last=True, collate_fn=stacked, generator=self.draws, **options)
        self.images, self.epoch, self.seed = images, epoch, seed
        images.items.set_loader_cfg(num_workers=self.num_workers)

    def __len__(self) -> int:
        """Batches of an epoch; each worker gives whole ones."""
        return len(self.images.items) // (self.batch_size or 1)

    def __iter__(self) -> Any:
        """Batches, from the moment that the first is asked for."""
        self.images.items.set_epoch(self.epoch())
        self.draws.manual_seed(hash((self.seed, self.epoch())))
        yield from super().__iter__()


def stacked(items: Sequence[Item]) -> Read:
    """A batch of single images."""
    images, labels, faults = zip(*items, strict=True)
    return Read(torch.stack(images), torch.tensor(labels), tuple(fault for fault in faults if fault is not None))


def _told(items: Iterable[tuple[Any, Any]], name: str) -> Iterator[tuple[Any, Any]]:
    """The items of a reader, whose failure is a line."""
    try:
        yield from items
    except Exception as error:  # of the readers' many kinds
        raise UserError(f"{name} cannot be read to its end: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _picture(picture: Any, channels: int, name: str) -> Image.Image:
    return as_picture(
        lambda: picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture)), channels, name
    )
