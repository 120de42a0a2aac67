"""Detection of evaluation images that are training images too, on which accuracy says little."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import Split
from vit_attn.errors import printable

MAX_BYTES = 500_000_000
"""Most bytes of files that are compared; with more, none is."""


@rank_zero_only
def log_duplicates(splits: Mapping[str, Split]) -> None:
    """Warn of validation and test files that have the same bytes as a training file, whatever their names.

    Args:
        splits: The splits; only those of files are compared.
    """
    train = splits["train"].pictures
    for name, title in (("val", "validation"), ("test", "test")):
        pictures = splits[name].pictures if name in splits else None
        if not (isinstance(train, ImageFileList) and isinstance(pictures, ImageFileList)):
            continue
        if found := duplicates(train.paths.tolist(), pictures.paths.tolist()):
            one, other = found[0]
            rank_zero_warn(
                printable(
                    f"{len(found)} of {len(pictures)} {title} images are training images too, such as {one}, the same "
                    f"as {other}: remove one of the two"
                )
            )


def duplicates(known: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of files with the same bytes, one of ``others`` and one of ``known``; only files of equal size are read.

    Args:
        known: Paths.
        others: Paths.
    """
    sizes, others_sizes = ({path: _size(path) for path in each} for each in (known, others))
    shared = (set(sizes.values()) & set(others_sizes.values())) - {0}
    alike, others_alike = ([path for path, size in each.items() if size in shared] for each in (sizes, others_sizes))
    if sum((sizes | others_sizes)[path] for path in (*alike, *others_alike)) > MAX_BYTES:
        return []
    contents = {_digest(path): path for path in alike}
    return [(path, contents[key]) for path in others_alike if (key := _digest(path)) in contents]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # reading it reports the error
        return 0


def _digest(path: str) -> bytes:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except OSError:
        return path.encode("utf-8", "surrogateescape")
