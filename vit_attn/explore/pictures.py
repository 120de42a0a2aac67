"""Pictures of a session: files of the command line, read when they are looked at, and those that the page sends."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vit_attn.data.images.fits import SeenPicture
from vit_attn.errors import UserError, printable, shortened
from vit_attn.explore.pixels import fit_to_network, opener_of
from vit_attn.inference.network import TrainedNetwork

MAX_PICTURES = 256
"""Most pictures of a session; one takes 150 kB for each network of 224x224 pixels."""
LONGEST_NAME = 120
"""Characters of a picture's name that are kept."""


class NoSuchPicture(UserError):
    """Error for a picture that the session does not have."""


@dataclass
class Picture:
    """Picture of a session, with its pixels for each network that has looked at it.

    Args:
        name: Name that the page shows.
        source: The file, or the error for one that cannot be read; None once the page's bytes were decoded.
        fitted: Its pixels by network.
    """

    name: str
    source: Path | None
    problem: str = ""
    fitted: dict[str, SeenPicture] = field(default_factory=dict)


class Pictures:
    """Pictures by index, fitted to several networks; safe for threads.

    Args:
        networks: The networks by name.
        files: Image files, which are read when they are looked at.
        fit: How a picture becomes the input of a network, one of ``FITS``.

    Raises:
        UserError: If there are too many files.
    """

    def __init__(self, networks: Mapping[str, TrainedNetwork], files: Sequence[Path] = (), fit: str = "auto") -> None:
        if len(files) > MAX_PICTURES:
            raise UserError(f"explore takes {MAX_PICTURES} pictures at most, got {len(files)}: name fewer")
        self.networks, self.fit = networks, fit
        self._listed = [Picture(_shown(path.name), path) for path in files]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._listed)

    def __getitem__(self, index: int) -> Picture:
        """Get a picture by its index, from 0.

        Raises:
            NoSuchPicture: If there is none.
        """
        if not 0 <= index < len(self._listed):
            hint = (
                f"pictures are numbered from 0 to {len(self._listed) - 1}" if self._listed else "drop a picture first"
            )
            raise NoSuchPicture(f"there is no picture {index}: {hint}")
        return self._listed[index]

    def add(self, content: bytes, name: str) -> int:
        """Decode a picture that the page sends, for every network; returns its index.

        Args:
            content: Bytes of an image file.
            name: Its name, which is shown and never opened.

        Raises:
            UserError: If it cannot be read as an image, or if there are too many.
        """
        name = _shown(name)
        if not content:
            raise UserError(f"{name} is empty: send the bytes of an image file")
        fitted = {run: fit_to_network(opener_of(content), name, net, self.fit) for run, net in self.networks.items()}
        with self._lock:
            if len(self._listed) >= MAX_PICTURES:
                raise UserError(f"explore keeps {MAX_PICTURES} pictures at most: start it again for others")
            self._listed.append(Picture(name, None, fitted=fitted))
            return len(self._listed) - 1

    def fitted(self, index: int, network: str) -> SeenPicture:
        """Return a picture as a network takes it; a file is read at the first time.

        Raises:
            UserError: If there is no such picture, or if its file cannot be read as an image.
        """
        picture = self[index]
        if picture.problem:
            raise UserError(picture.problem)
        if network not in picture.fitted and picture.source is not None:
            try:
                opener = opener_of(picture.source)
                picture.fitted[network] = fit_to_network(opener, picture.name, self.networks[network], self.fit)
            except UserError as error:
                picture.problem = str(error)
                raise
        return picture.fitted[network]

    def identity(self, index: int) -> str:
        """Return a text by which the page recognises a picture in every network, without reading its file."""
        return hashlib.sha256(f"{index} {self[index].name}".encode()).hexdigest()[:16]


def _shown(name: str) -> str:
    """Make a name that any page and terminal can show."""
    return shortened(printable(name.encode(errors="replace").decode()), LONGEST_NAME) or "picture"
