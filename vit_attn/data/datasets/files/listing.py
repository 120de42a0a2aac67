"""Listing of a folder's pictures and sub-folders, with counts of the files that are left out."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vit_attn.data.datasets.remarks import Doubt
from vit_attn.data.images.image_file import SUFFIXES
from vit_attn.errors import UserError

LITTER_FOLDERS = frozenset(
    "@eadir @tmp @recycle @recently-snapshot #recycle #snapshot __macosx __pycache__ $recycle.bin lost+found "
    "~snapshot".split()
) | {"system volume information"}
"""Folders of systems and file servers with thumbnails and deleted files, as are those that begin with a dot."""
LITTER_FILES = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
PHOTOS = frozenset(".heic .heif .avif .jxl .dng .cr2 .cr3 .nef .arw .orf .raf .rw2".split()) - SUFFIXES
"""Extensions of photographs that cannot be read, of telephones and cameras."""
CIRCLES = "linked to a folder above"
SHOWN = 6
"""Most kinds of left-out files in a remark."""


@dataclass
class Folder:
    """A folder with everything below it.

    Args:
        path: Path of the folder.
        pictures: Sorted paths of the files in it with a picture's suffix.
        folders: Sorted sub-folders.
        left_out: Number of other files in it, by kind.
        links: Number of links among its files and sub-folders.
    """

    path: Path
    pictures: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    links: int = 0

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    def all_pictures(self) -> Iterator[str]:
        """Pictures in it and below it, sorted by name, files and folders together."""
        named: list[tuple[str, str | Folder]] = [(os.path.basename(path), path) for path in self.pictures]
        named += [(folder.name, folder) for folder in self.folders]
        for _, each in sorted(named, key=lambda pair: pair[0]):
            yield from [each] if isinstance(each, str) else each.all_pictures()

    @property
    def count(self) -> int:
        """Number of pictures in it and below it."""
        return len(self.pictures) + sum(folder.count for folder in self.folders)

    @property
    def filled(self) -> list["Folder"]:
        """Sub-folders with pictures in or below them."""
        return [folder for folder in self.folders if folder.count]

    def all_left_out(self) -> Counter[str]:
        """Number of files left out in it and below it, by kind."""
        return sum((folder.all_left_out() for folder in self.folders), Counter(self.left_out))

    def has_links(self) -> bool:
        """Tell if it or a folder below it has links."""
        return self.links > 0 or any(folder.has_links() for folder in self.folders)


def scan(folder: Path) -> Folder:
    """List a folder recursively, following links, but not in circles.

    Raises:
        UserError: If a folder cannot be read.
    """
    return _scan(folder, Path(os.path.realpath(folder)), ())


def _scan(path: Path, real: Path, above: tuple[Path, ...]) -> Folder:
    """List a folder; ``above`` are the real paths of the folders through which it was reached."""
    found, above = Folder(path), (*above, real)
    for entry in _entries(path):
        name, child = entry.name, path / entry.name
        found.links += _is_link(entry)
        if not _is_folder(entry):
            kind = _kind_of_file(name)
            if kind is None:
                found.pictures.append(str(child))
            else:
                found.left_out[kind] += 1
            continue
        inside = Path(os.path.realpath(child)) if _is_link(entry) else real / name
        if any(each.is_relative_to(inside) for each in above):
            found.left_out[CIRCLES] += 1
            continue
        if is_litter(name):
            found.left_out[f"in {name}"] += _count_litter(child, inside, above)
        else:
            found.folders.append(_scan(child, inside, above))
    return found


def _count_litter(path: Path, real: Path, above: tuple[Path, ...]) -> int:
    """Count the pictures below a folder of the system; 0 if it cannot be read, as often ``lost+found``."""
    try:
        return _scan(path, real, above).count
    except UserError:
        return 0


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"folder {path} cannot be read: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() or bool(getattr(entry, "is_junction", bool)())


def is_litter(name: str) -> bool:
    """Tell by its name if a folder is one of the system and not the user's."""
    return name.startswith(".") or name.lower() in LITTER_FOLDERS


def _kind_of_file(name: str) -> str | None:
    """Kind under which a file that is no picture is counted; None for a picture."""
    if name.startswith("._"):
        return "._…"
    if name.lower() in LITTER_FILES:
        return name.strip()
    if name.startswith("."):
        return "hidden"
    ending = os.path.splitext(name)[1].lower()
    return None if ending in SUFFIXES else ending or "without an ending"


def describe_linked_twice(folder: Folder, pictures: Iterable[str]) -> list[str]:
    """Remark on pictures that are reached more than once through links, which may put one into two splits or classes.

    Args:
        folder: Folder that was listed.
        pictures: Pictures that are used.
    """
    if not folder.has_links():
        return []
    files: set[tuple[int, int]] = set()
    again: list[str] = []
    for path in pictures:
        try:
            known = os.stat(path)
        except OSError:  # a broken link, which reading reports
            continue
        if (known.st_dev, known.st_ino) in files:
            again.append(path)
        files.add((known.st_dev, known.st_ino))
    what = "picture is" if len(again) == 1 else "pictures are"
    return [Doubt(f"{len(again)} {what} there more than once, by links, such as {again[0]}")] if again else []


def pictures_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Pictures in a folder and below it, and numbers of left-out files by kind.

    Raises:
        UserError: If a folder cannot be read.
    """
    found = scan(folder)
    return [Path(path) for path in found.all_pictures()], found.all_left_out()


def describe_unread_photos(counts: Counter[str]) -> list[str]:
    """Remark on left-out files that are photographs in a format that is not read, such as those of a telephone.

    >>> describe_unread_photos(Counter({".heic": 12, ".txt": 1}))
    ['12 photos are left out, as .heic is not read: convert them to JPEG']
    """
    kinds = sorted(kind for kind in +counts if kind in PHOTOS)
    if not (total := sum(counts[kind] for kind in kinds)):
        return []
    photos, them = ("photo is", "it") if total == 1 else ("photos are", "them")
    return [Doubt(f"{total:,} {photos} left out, as {', '.join(kinds)} is not read: convert {them} to JPEG")]


def describe_left_out(counts: Counter[str]) -> str:
    """Describe the left-out files by number and kind; empty if there are none.

    >>> describe_left_out(Counter({"in @eaDir": 12, ".txt": 1}))
    'left out 13 files: 12 in @eaDir, 1 .txt'
    """
    if not (total := counts.total()):
        return ""
    kinds = sorted((+counts).items(), key=lambda each: (-each[1], each[0]))[:SHOWN]
    more = total - sum(count for _, count in kinds)
    named = ", ".join(f"{count:,} {kind}" for kind, count in kinds) + (f", {more:,} more" if more else "")
    return f"left out {total:,} file{'s' * (total > 1)}: {named}"
