"""Image files of the user: finding them, and reading them ahead while the network computes."""

import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vit_attn.data.datasets.files.listing import describe_left_out, pictures_in
from vit_attn.data.images.fits import SeenPicture, crop, letterbox, percent, whole
from vit_attn.data.images.image_file import SUFFIXES, read_picture
from vit_attn.data.summary import describe_classes
from vit_attn.errors import UserError, did_you_mean, one_line, path_hint
from vit_attn.inference.network import TrainedNetwork

READERS = 4
"""Threads that read images; decoding releases Python's lock."""

FITS = ("auto", "crop", "letterbox", "whole")
"""Fits of a picture to a network; ``auto`` is ``whole`` for networks that take any size, else ``crop``."""

WHOLE = ("auto", "whole")
"""Fits that show all of a picture at its own shape, where the network takes any size."""

ReadImage = tuple[Path, SeenPicture | str]
"""File and its picture, or an error message."""


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
        elif path.suffix.lower() in (".ckpt", ".safetensors"):
            raise UserError(f"{path} is no picture but a file of weights: name it with --model")
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no such image or folder: {path}{path_hint(path)}")
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


def check_fit(fit: str) -> None:
    """Check the name of a fit.

    Raises:
        UserError: If there is none of this name.
    """
    if fit not in FITS:
        raise UserError(f"--fit must be one of {', '.join(FITS)}, got {fit!r}{did_you_mean(fit, FITS)}")


def seen_picture(picture: Image.Image, network: TrainedNetwork, fit: str = "auto") -> SeenPicture:
    """Fit a picture to a network.

    ``crop`` is the middle, as the network is evaluated; ``letterbox`` the whole picture in padding, which
    :func:`to_batch` makes zeros; ``whole`` the picture at its own shape, in at most as many patches as the network was
    trained on.

    Args:
        picture: An upright picture of the network's channels, as ``read_picture`` returns it.
        network: The network, from ``network_for_fit`` where the fit may be ``whole``.
        fit: One of ``FITS``.

    Raises:
        UserError: If there is no such fit, or if the network takes one size only and must take pictures whole.
    """
    check_fit(fit)
    card, patches = network.card, network.any_size_patches if fit in WHOLE else None
    if patches:
        return whole(picture, patches.size, patches.count)
    if fit == "whole":
        raise UserError(f"{card.architecture} takes images of one size only: use network_for_fit first")
    if fit == "letterbox":
        return letterbox(picture, card.img_size, card.mean)
    return crop(picture, card.img_size, card.crop_pct)


def to_batch(
    pictures: Sequence[SeenPicture], network: TrainedNetwork, device: torch.device
) -> Float[Tensor, "B C height width"]:
    """Normalise pictures of one shape; padding becomes exactly 0.

    Args:
        pictures: The pictures.
        network: The network.
        device: Device of the batch.
    """
    batch = network.normalize([picture.pixels for picture in pictures], device)
    for image, picture in zip(batch, pictures, strict=True):
        if picture.is_padded:
            left, top, right, bottom = picture.content
            content = image[:, top:bottom, left:right].clone()
            image.zero_()[:, top:bottom, left:right] = content
    return batch


def by_shape(pictures: Sequence[SeenPicture]) -> list[list[int]]:
    """Group pictures by the shape of their pixels: indices of the pictures of each shape, in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(picture.pixels.shape, []).append(index)
    return list(groups.values())


class ImageReader:
    """Reader of images in the channels and the fit of a network.

    Args:
        network: The network, from ``network_for_fit`` where the fit may be ``whole``.
        fit: One of ``FITS``.
    """

    def __init__(self, network: TrainedNetwork, fit: str = "auto") -> None:
        self.network, self.fit = network, fit
        self._is_whole = fit in WHOLE and network.any_size_patches is not None  # found out here, not in each thread
        self.found_bits: list[int] = []
        """Bits that each image with more than 8 uses, if the model card gives no bit depth."""
        self._lock = Lock()
        self._seen: Counter[str] = Counter()
        """Number of images that were read, cut and padded."""
        self._shapes: set[tuple[int, ...]] = set()
        self._most_cut = 0.0

    def read(self, path: Path) -> SeenPicture | str:
        """Read an image file; an error message if that fails."""
        card = self.network.card
        try:
            picture = read_picture(path, card.in_chans, card.bits)
        except UserError as error:
            return str(error)
        if card.bits is None and "bits" in picture.info:
            self.found_bits.append(picture.info["bits"])
        seen = seen_picture(picture, self.network, self.fit)
        with self._lock:
            self._seen.update({"cut": seen.cut > 0, "padded": seen.is_padded, "read": 1})
            self._shapes.add(seen.pixels.shape)
            self._most_cut = max(self._most_cut, seen.cut)
        return seen

    def report_fit(self) -> None:
        """Print how many images were cut or padded, or in how many shapes they were seen."""
        cut, padded, read = (self._seen[name] for name in ("cut", "padded", "read"))
        if cut:
            line = f"cut off: the edges of {cut:,} of {read:,} images, at most {percent(self._most_cut)} of one; "
            line += "--fit=letterbox shows them whole"
        elif padded:
            line = f"padded to the network's shape: {padded:,} of {read:,} images"
        elif read and self._is_whole:
            shapes = len(self._shapes)
            line = f"seen whole: {read:,} image{'s' * (read > 1)}, in {shapes:,} shape{'s' * (shapes > 1)}"
        else:
            return
        sys.stdout.write(f"{line}\n")

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
