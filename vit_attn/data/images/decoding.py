"""Reading the pictures of a split, once, into one tensor; what cannot be read is named, or left out."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.data.datasets.splits import ImageList, Split
from vit_attn.data.images.image_file import fit_picture
from vit_attn.errors import UserError

CHUNK = 256
SPARE = 2
"""Times the size that the network takes: what is decoded smaller than that would lose detail in resizing."""
TOLD_FROM = 5_000
"""Sets from this number of pictures on tell how far they are."""
Result = TypeVar("Result")


def read_fitted(
    pictures: ImageList, index: int, size: tuple[int, int], channels: int
) -> UInt8[np.ndarray, "height width channels"]:
    """One picture in the size that the network takes: its centre.

    Raises:
        UserError: If it cannot be read; it is named.
    """
    return fit_picture(pictures.read(index, channels, SPARE * max(size)), size)


def decode(split: Split, name: str, size: tuple[int, int], channels: int, skip_damaged: bool) -> Split:
    """The split with all pictures in one tensor, read in as many threads as there are cores.

    Args:
        split: Pictures that are still to be read.
        name: What messages call the split.
        size: Height and width in pixels.
        channels: 3 for colour, 1 for grey.
        skip_damaged: Whether what cannot be read is left out, and said, instead of ending the run.

    Raises:
        UserError: If a picture cannot be read and is not to be left out.
    """
    pictures, images = split.to_read(), torch.empty(len(split), channels, *size, dtype=torch.uint8)

    def read(index: int) -> str | None:
        try:
            pixels = read_fitted(pictures, index, size, channels)
        except UserError as error:
            return str(error)
        images[index] = torch.from_numpy(pixels).permute(2, 0, 1)
        return None

    kept = intact(split, name, read, "decoded", skip_damaged)
    whole = replace(split, images=images)
    return whole if kept is None else whole.take(kept)


def without_damaged(split: Split, name: str, channels: int) -> Split:
    """The split without what cannot be read, which is said; all pictures are read for it, and none is kept."""
    pictures = split.to_read()

    def read(index: int) -> str | None:
        try:
            pictures.read(index, channels)
        except UserError as error:
            return str(error)
        return None

    kept = intact(split, name, read, "checked", True)
    return split if kept is None else split.take(kept)


def intact(
    split: Split, name: str, read: Callable[[int], str | None], done: str, skip_damaged: bool
) -> np.ndarray | None:
    """Indices of the pictures that can be read, or None for all of them."""
    faults = in_threads(read, len(split), f"{done} {{}} of {len(split):,} {name} images")
    damaged = [fault for fault in faults if fault is not None]
    if not damaged:
        return None
    if not skip_damaged:
        more = f"; {len(damaged) - 1} more of the {len(split)} {name} images cannot" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[0]}{more}; mend or remove, or skip with --data.skip_damaged=true")
    rank_zero_info(_skipped_line(damaged, name))
    return np.flatnonzero([fault is None for fault in faults])


def _skipped_line(damaged: Sequence[str], name: str) -> str:
    """What is said about pictures that are left out."""
    more = f", and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return (
        f"skip_damaged: left out {len(damaged)} {name} image{'s' * (len(damaged) > 1)}: {'; '.join(damaged[:3])}{more}"
    )


def in_threads(work: Callable[[int], Result], count: int, progress: str) -> list[Result]:
    """The results in order; reading lets go of Python's lock, so threads do."""

    def chunk(start: int) -> list[Result]:
        return [work(index) for index in range(start, min(start + CHUNK, count))]

    results: list[Result] = []
    told = TOLD_FROM
    with ThreadPoolExecutor(cores()) as pool:
        for part in pool.map(chunk, range(0, count, CHUNK)):
            results += part
            if len(results) >= told or (len(results) == count > TOLD_FROM):
                rank_zero_info(progress.format(f"{len(results):,}"))
                told = len(results) + max(TOLD_FROM, count // 10)
    return results


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
