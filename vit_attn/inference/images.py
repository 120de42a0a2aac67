"""Image files of the user: finding them, and reading them ahead while the network computes."""

import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.data.datasets.files.listing import describe_left_out, pictures_in
from vit_attn.data.images.image_file import SUFFIXES, fit_picture, read_picture
from vit_attn.data.summary import describe_classes
from vit_attn.errors import UserError, one_line
from vit_attn.inference.network import TrainedNetwork

READERS = 4
"""Threads that read images; decoding releases Python's lock."""

Pixels = UInt8[np.ndarray, "height width channels"]
ReadImage = tuple[Path, Pixels | str]
"""File and its pixels, or an error message."""


def find_images(paths: Sequence[str]) -> list[Path]:
    """List image files, and those in folders and their sub-folders, as ``fit`` reads them.

    Files are in the order given, those of a folder sorted. Other files of a folder are counted in one line of output.

    Args:
        paths: Files and folders.

    Raises:
        UserError: If there are no images, or if a folder cannot be read.
    """
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            inside, others = pictures_in(path)
            found += sorted(inside)
            left_out += others
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no such image or folder: {path}")
    remark = describe_left_out(left_out)
    if not found:
        details = f" ({remark})" if remark else ""
        raise UserError(f"no images in {', '.join(paths)}{details}: known are {', '.join(sorted(SUFFIXES))}")
    if remark:
        sys.stdout.write(f"{one_line(remark)}\n")
    return found


def without_repeats(files: Sequence[Path]) -> list[Path]:
    """Drop repeated files, which are counted in one line of output."""
    once: dict[str, Path] = {}
    for path in files:
        once.setdefault(os.path.abspath(path), path)
    if repeats := len(files) - len(once):
        sys.stdout.write(f"listed more than once, read once: {repeats:,} image{'s' * (repeats > 1)}\n")
    return list(once.values())


def report_input(network: TrainedNetwork, name: str, files: Sequence[Path]) -> None:
    """Print one line with the classes of the network and the number of images.

    Args:
        network: The network.
        name: Its name on the command line.
        files: The images.
    """
    names = [network.class_name(index) for index in range(network.num_classes)]
    line = f"{name}: {describe_classes(names)}; {len(files):,} image{'' if len(files) == 1 else 's'}"
    sys.stdout.write(one_line(line) + "\n")


class ImageReader:
    """Reader of images in the size, channels and crop of a network.

    Args:
        card: Model card of the network.
    """

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.found_bits: list[int] = []
        """Bits that each image with more than 8 uses, if the model card gives no bit depth."""

    def read(self, path: Path) -> Pixels | str:
        """Read the pixels of an image file; an error message if that fails."""
        try:
            picture = read_picture(path, self.card.in_chans, self.card.bits)
        except UserError as error:
            return str(error)
        if self.card.bits is None and "bits" in picture.info:
            self.found_bits.append(picture.info["bits"])
        return fit_picture(picture, self.card.img_size, self.card.crop_pct)

    def report_bits(self) -> None:
        """Print how images with more than 8 bits were scaled, if the model card gives no bit depth."""
        if self.found_bits:
            counts = ", ".join(f"{count} use {bits}" for bits, count in sorted(Counter(self.found_bits).items()))
            sys.stdout.write(
                "pictures of 16 bits: each is scaled by the bits that it uses, as the training images had none: "
                f"{counts}\n"
            )


def read_ahead(files: Sequence[Path], reader: ImageReader, batch_size: int) -> Iterator[list[ReadImage]]:
    """Read batches of images in order, in threads while the network computes; at most three are in memory.

    Args:
        files: Image files.
        reader: Reader of the network's images.
        batch_size: Images in a batch.
    """
    with ThreadPoolExecutor(READERS, "read-images") as threads:
        try:
            remaining = iter(files)
            pending = deque((path, threads.submit(reader.read, path)) for path in islice(remaining, 2 * batch_size))
            while pending:
                batch = [pending.popleft() for _ in range(min(batch_size, len(pending)))]
                images = [(path, reading.result()) for path, reading in batch]
                pending.extend((path, threads.submit(reader.read, path)) for path in islice(remaining, len(batch)))
                yield images
        finally:
            threads.shutdown(cancel_futures=True)
