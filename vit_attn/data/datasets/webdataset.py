"""Index of webdataset's tar files for ``wds/…``: splits, labels and class names, without reading an image."""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_attn.data.datasets.files.names import splits_in
from vit_attn.data.datasets.files.roots import refuse_other_root
from vit_attn.errors import UserError

NAMES_FILE = "classes.txt"


@dataclass(frozen=True)
class Shards:
    """Tar files of one split.

    Args:
        paths: The files.
        labels: Class indices of their images.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    @property
    def split(self) -> str:
        """The files in the notation of webdataset and timm, with the number of images."""
        return "::".join(path.name for path in self.paths) + f"|{len(self.labels)}"


def find_shards(folder: Path) -> dict[str, Shards]:
    """Find the splits in a folder by the words ``train``, ``val`` or ``test`` in the names of its files.

    Raises:
        UserError: If there are none, if a file cannot be read, or if its name has words of two splits.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; name the folder of the tar files with --data.root")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.tar")):
        splits = splits_in(path.stem)
        if len(splits) > 1:
            raise UserError(f"the name of {path} has the words of {len(splits)} splits: {', '.join(splits)}")
        for split in splits:
            found.setdefault(split, []).append(path)
    for split in ("train", "val"):
        if split not in found:
            refuse_other_root("tar files of webdataset", folder)
            raise UserError(f"no tar file in {folder} has {split!r} in its name, such as {split}-0000.tar")
    return {split: Shards(tuple(paths), tuple(_labels(paths, split))) for split, paths in found.items()}


def class_names(folder: Path, shards: dict[str, Shards]) -> tuple[str, ...]:
    """Class names by index: the lines of ``classes.txt`` next to the tar files, else numbers.

    Raises:
        UserError: If there are fewer names than classes.
    """
    count = 1 + max(label for each in shards.values() for label in each.labels)
    file = folder / NAMES_FILE
    if not file.is_file():
        return tuple(f"class {number}" for number in range(count))
    names = tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    if len(names) < count:
        raise UserError(f"{file} names {len(names)} classes, but the tar files have labels up to {count - 1}")
    return names


def _labels(paths: Sequence[Path], split: str) -> list[int]:
    """Labels of the ``.cls`` files; a test split may have none."""
    labels = []
    for path in paths:
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and member.name.endswith(".cls"):
                        content = tar.extractfile(member)
                        labels.append(int(content.read()) if content else -1)
        except (OSError, tarfile.TarError, ValueError) as error:
            raise UserError(f"{path} is not a whole tar file of images with .cls labels: {error}") from error
    if (not labels and split != "test") or min(labels, default=0) < 0:
        raise UserError(
            f"{paths[0]} has no labels: webdataset keeps them in files that end in .cls, next to the images"
        )
    return labels
