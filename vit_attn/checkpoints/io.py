"""The one reader of checkpoints: a file is read once a process, memory-mapped, and nothing in it is ever run."""

import copy
import functools
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from vit_attn.errors import UserError

KEPT = 2
"""Files whose content is kept: what a run starts from and what it is normalised by."""
ZIP = b"PK\x03\x04"
"""First bytes of a file that torch has written since version 1.6; older ones cannot be mapped."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a file that torch has written, with its tensors on the CPU.

    A file that has not changed since it was last read is not read again. Dictionaries and lists are the caller's own;
    the tensors are shared with later callers, so clone what is to be changed in place, as an optimiser does.

    Args:
        path: A file of any name.

    Raises:
        UserError: If there is no such file, if it is damaged, if reading it would run code, or if it holds no
            dictionary.
    """
    try:
        content = _own(_read_pickle(*_version(Path(path))))
    except (UserError, OSError):  # of the latter, such as no permission, the message names the file
        raise
    except Exception as error:  # a damaged or hostile file can fail in any way
        kind = type(error).__name__  # torch's own words advise to run that code
        raise UserError(
            f"{path} is not a whole checkpoint: it holds no weights that can be read without running code ({kind})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights by name, as a checkpoint does, but a {type(content).__name__}")
    return content


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a ``.safetensors`` file; what ``read_checkpoint`` says of these holds here too.

    Raises:
        UserError: If there is no such file, or if it is damaged.
    """
    try:
        metadata, tensors = _read_safetensors(*_version(Path(path)))
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{path} holds no weights that can be read: it is damaged ({error})") from error
    return dict(metadata), dict(tensors)


def forget_files() -> None:
    """Let go of the files that were read, whose room on the disk is theirs as long as they are mapped."""
    _read_pickle.cache_clear()
    _read_safetensors.cache_clear()


def _version(path: Path) -> tuple[Path, int, int, int]:
    """Which file this is, and in which state.

    Raises:
        UserError: If there is none that could be read.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, such as {path / 'checkpoints' / 'best.ckpt'}")
    if not path.exists():
        raise UserError(f"file not found: {path}")
    now = path.stat()
    if not now.st_size:
        raise UserError(f"{path} is empty: it is not a whole checkpoint")
    return path.resolve(), now.st_ino, now.st_size, now.st_mtime_ns


@functools.lru_cache(maxsize=KEPT)
def _read_pickle(path: Path, *_version: int) -> Any:
    with path.open("rb") as file:
        mapped = file.read(len(ZIP)) == ZIP
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


@functools.lru_cache(maxsize=KEPT)
def _read_safetensors(path: Path, *_version: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(str(path), "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}


def _own(value: Any) -> Any:
    """The same with dictionaries and lists of its own, whose kinds and attributes stay."""
    if isinstance(value, dict):
        mine = copy.copy(value)
        for name, each in value.items():
            mine[name] = _own(each)
        return mine
    return [_own(each) for each in value] if type(value) is list else value
