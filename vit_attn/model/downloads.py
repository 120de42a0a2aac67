"""Downloads of weights from an address, cached once they are accepted."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import torch

from vit_attn.errors import UserError


@contextlib.contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """Download a file, or take it from the cache; it leaves the cache again if the block raises a ``UserError``.

    Args:
        url: An ``https://`` or ``http://`` address.

    Yields:
        Path of the file.

    Raises:
        UserError: If it cannot be downloaded completely.
    """
    name = Path(urlsplit(url).path).name or "weights"
    path = Path(torch.hub.get_dir(), "vit_attn", hashlib.sha256(url.encode()).hexdigest()[:16], name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, path)
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            raise UserError(f"weights could not be downloaded from {url}: {error}") from error
    try:
        yield path
    except UserError:  # or the next attempt would read the same file
        path.unlink(missing_ok=True)
        raise


def _download(url: str, path: Path) -> None:
    """Download to a temporary file and rename it once it is complete."""
    request = urllib.request.Request(url, headers={"User-Agent": "vit_attn"})
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(request, timeout=60) as reply:
            shutil.copyfileobj(reply, file, 1 << 20)
            announced, size = reply.headers.get("Content-Length"), file.tell()
        if announced is not None and size != int(announced):
            raise OSError(f"it ended after {size:,} of {int(announced):,} bytes")
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
