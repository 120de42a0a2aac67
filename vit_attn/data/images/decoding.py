"""Decoding of the pictures of a split into one tensor; corrupt files are reported, or left out."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vit_attn.data.datasets.splits import Split
from vit_attn.data.images.image_file import OVERSAMPLING, fit_picture
from vit_attn.errors import UserError

CHUNK = 256
PROGRESS_STEP = 5_000
"""Pictures after which progress is logged, for splits of at least as many."""
Result = TypeVar("Result")


def decode(split: Split, name: str, size: tuple[int, int], channels: int, skip_corrupt: bool) -> Split:
    """Decode the centre crops of all pictures into one tensor, in as many threads as there are cores.

    Args:
        split: Pictures that are not decoded yet.
        name: Name of the split for messages.
        size: Height and width in pixels.
        channels: 3 for colour, 1 for grey.
        skip_corrupt: Whether corrupt files are left out and logged, instead of ending the run.

    Raises:
        UserError: If a file is corrupt and is not to be left out.
    """
    pictures, images = split.to_read(), torch.empty(len(split), channels, *size, dtype=torch.uint8)

    def read(index: int) -> str | None:
        try:
            pixels = fit_picture(pictures.read(index, channels, OVERSAMPLING * max(size)), size)
        except UserError as error:
            return str(error)
        images[index] = torch.from_numpy(pixels).permute(2, 0, 1)
        return None

    kept = readable_indices(split, name, read, "decoded", skip_corrupt)
    decoded = replace(split, images=images)
    return decoded if kept is None else decoded.take(kept)


def without_corrupt(split: Split, name: str, channels: int) -> Split:
    """The split without corrupt files, which are logged; every picture is read once for it."""
    pictures = split.to_read()

    def read(index: int) -> str | None:
        try:
            pictures.read(index, channels)
        except UserError as error:
            return str(error)
        return None

    kept = readable_indices(split, name, read, "checked", True)
    return split if kept is None else split.take(kept)


def readable_indices(
    split: Split, name: str, read: Callable[[int], str | None], participle: str, skip_corrupt: bool
) -> np.ndarray | None:
    """Read all pictures; the indices of those that can be read, or None for all.

    Args:
        split: The split.
        name: Name of the split for messages.
        read: Reads a picture by its index; its error, if there is one.
        participle: Of the verb for what ``read`` does, for the progress message.
        skip_corrupt: Whether corrupt files are left out and logged, instead of ending the run.

    Raises:
        UserError: If a file is corrupt and is not to be left out.
    """
    errors = in_threads(read, len(split), f"{participle} {{}} of {len(split):,} {name} images")
    corrupt = [error for error in errors if error is not None]
    if not corrupt:
        return None
    if not skip_corrupt:
        more = f"; {len(corrupt) - 1} more of the {len(split)} {name} images cannot" if len(corrupt) > 1 else ""
        raise UserError(f"{corrupt[0]}{more}; repair or remove it, or skip with --data.skip_corrupt=true")
    rank_zero_info(_skipped(corrupt, name))
    return np.flatnonzero([error is None for error in errors])


def _skipped(corrupt: Sequence[str], name: str) -> str:
    """Message about corrupt files that are left out."""
    more = f", and {len(corrupt) - 3} more" if len(corrupt) > 3 else ""
    images = f"{name} image{'s' * (len(corrupt) > 1)}"
    return f"skip_corrupt: left out {len(corrupt)} {images}: {'; '.join(corrupt[:3])}{more}"


def in_threads(work: Callable[[int], Result], count: int, progress: str) -> list[Result]:
    """Results of ``work(0)`` to ``work(count - 1)``; decoding releases Python's lock, so threads run in parallel.

    Args:
        work: What is done.
        count: How many times.
        progress: Message with a placeholder for the number that is done.
    """

    def chunk(start: int) -> list[Result]:
        return [work(index) for index in range(start, min(start + CHUNK, count))]

    results: list[Result] = []
    next_message = PROGRESS_STEP
    with ThreadPoolExecutor(available_cores()) as pool:
        for part in pool.map(chunk, range(0, count, CHUNK)):
            results += part
            if len(results) >= next_message or (len(results) == count > PROGRESS_STEP):
                rank_zero_info(progress.format(f"{len(results):,}"))
                next_message = len(results) + max(PROGRESS_STEP, count // 10)
    return results


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
