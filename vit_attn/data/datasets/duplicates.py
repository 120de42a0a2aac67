"""Images that are measured and trained on as well: a network knows them, so accuracy on them says little."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from vit_attn.data.datasets.splits import ImageFileList, Split
from vit_attn.errors import printable

MOST_BYTES = 500_000_000
"""Bytes of files that are compared; of more, none is."""


@rank_zero_only
def say_duplicates(splits: Mapping[str, Split]) -> None:
    """Log one line about files of validation and test that are training files too, byte by byte, under whatever name.

    Args:
        splits: As they were found; of those that are no files nothing is said.
    """
    train = splits["train"].pictures
    for name, called in (("val", "validation"), ("test", "test")):
        pictures = splits[name].pictures if name in splits else None
        if not (isinstance(train, ImageFileList) and isinstance(pictures, ImageFileList)):
            continue
        if found := duplicates(train.paths.tolist(), pictures.paths.tolist()):
            one, other = found[0]
            rank_zero_info(
                printable(
                    f"{len(found)} of {len(pictures)} {called} images are training images too, such as {one}, the same "
                    f"as {other}: leave one of the two out"
                )
            )


def duplicates(known: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """The other files that are equal to a known one, each with that one; only files of one size are read.

    Args:
        known: Paths.
        others: Paths.
    """
    sizes, others_sizes = ({path: _size(path) for path in each} for each in (known, others))
    shared = (set(sizes.values()) & set(others_sizes.values())) - {0}
    alike, others_alike = ([path for path, size in each.items() if size in shared] for each in (sizes, others_sizes))
    if sum((sizes | others_sizes)[path] for path in (*alike, *others_alike)) > MOST_BYTES:
        return []
    contents = {_digest(path): path for path in alike}
    return [(path, contents[key]) for path in others_alike if (key := _digest(path)) in contents]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # of which reading it will tell
        return 0


def _digest(path: str) -> bytes:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except OSError:
        return path.encode("utf-8", "surrogateescape")
