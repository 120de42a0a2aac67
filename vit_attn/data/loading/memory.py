"""Choice of the loader: whether the decoded images fit in the device's memory."""

import contextlib
from collections.abc import Iterator
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.data.datasets.splits import Split

LoaderKind = Literal["auto", "memory", "workers"]
STREAM_SAMPLE = 16
"""Images of a stream from which the size of all is estimated."""


def fits_in_memory(loader: LoaderKind, count: int, image_bytes: float, budget_gb: float, note: str = "") -> bool:
    """Decide whether all images are kept on the device, and log it where ``loader`` is ``auto``.

    Args:
        loader: The user's choice.
        count: Images of all splits.
        image_bytes: Mean size of a decoded image in bytes.
        budget_gb: Memory for ``auto`` in GB.
        note: Why an image takes more than the network's input size.
    """
    if loader != "auto":
        return loader == "memory"
    needed = count * image_bytes / 1e9
    fits = needed <= budget_gb
    rank_zero_info(
        f"loader: {'memory' if fits else 'workers'}, since the {count:,} decoded images are {needed:.2f} GB{note} and "
        f"memory_budget_gb={budget_gb:g}"
    )
    return fits


def full_size_bytes(split: Split, channels: int, min_side: int, enough: float) -> float:
    """Size of the decoded images in their original sizes, by their headers.

    It is an estimate for a stream, and where there are more bytes than ``enough``.

    Args:
        split: Images that are not decoded yet.
        channels: 3 for colour, 1 for grey.
        min_side: Shorter side, in pixels, that is enough.
        enough: Bytes after which no more headers are read.
    """
    total, seen = 0, 0
    for height, width in _sizes(split, channels, min_side):
        total, seen = total + channels * height * width, seen + 1
        if total > enough:
            break
    return total / max(1, seen) * len(split)


def _sizes(split: Split, channels: int, min_side: int) -> Iterator[tuple[int, int]]:
    """Height and width of each image, or of the first images of a stream."""
    if split.stream is not None:
        for picture, _ in split.stream.pictures(STREAM_SAMPLE, channels, skip_corrupt=True):
            yield picture.height, picture.width
        return
    pictures = split.to_read()
    for index in range(len(pictures)):
        with contextlib.suppress(Exception):  # corrupt files fail in many ways; decoding reports them
            yield pictures.size(index, min_side)
