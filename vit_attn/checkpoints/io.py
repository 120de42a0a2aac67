"""Cached reader of checkpoints and exports: each file is read once a process, and no code in it is ever run."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from torch import Tensor

from vit_attn.checkpoints.contents import PATCH_SIZE, hyperparameters_of, is_count, is_ours
from vit_attn.checkpoints.model_card import DATA_ARGS, ModelCard, card_from_metadata, card_from_state
from vit_attn.checkpoints.own_parts import PARTS_KEY, import_stored_parts
from vit_attn.checkpoints.paths import describe_missing, kind_hint, weights_file
from vit_attn.checkpoints.stored_network import check_hyperparameters, check_network
from vit_attn.errors import UserError, path_hint
from vit_attn.model.pretrained import names_network, pretrained_weights

CACHED_FILES = 2
"""Files whose content is cached: the weights that a run starts from, and those that give its normalisation."""
ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of files that torch has written since version 1.6; older ones cannot be memory-mapped."""


def find_card(source: str | Path) -> ModelCard | None:
    """Find the model card of a checkpoint, of an export or of a pretrained network of timm.

    The card of a checkpoint that has the state of our data module but no network of ours has no architecture.

    Args:
        source: A file of any name, a folder of an export or of a run, or a name in timm's registry.

    Returns:
        The card; None if the source is none of these, such as a file of bare weights.

    Raises:
        UserError: If the file is corrupt or describes an invalid network, or if timm does not know the name's tag.
    """
    path = weights_file(source)
    if path is None:
        return _timm_card(str(source)) if names_network(source) else None
    if path.suffix == ".safetensors":
        metadata, _ = read_safetensors(path)
        return read_card(path) if "architecture" in metadata else None
    checkpoint = read_checkpoint(path)
    return card_of_checkpoint(checkpoint, path) if is_ours(checkpoint) else card_from_state(checkpoint, path)


def read_card(path: str | Path) -> ModelCard:
    """Read the model card of a checkpoint or an export of ours.

    Args:
        path: A file, or a folder of an export or of a run.

    Raises:
        UserError: If there is no such file, if it is not one of ours, or if it is invalid.
    """
    path = weights_file(path) or Path(path)
    if path.suffix != ".safetensors":
        if not path.exists():
            raise UserError(f"checkpoint not found: {path}")
        return card_of_checkpoint(read_checkpoint(path), path)
    if not path.exists():
        raise UserError(f"weights not found: {path}")
    metadata, _ = read_safetensors(path)
    card = card_from_metadata(metadata, path)
    if card is None:
        raise UserError(
            f"{path} is not a file of `vit-attn export`, so it does not say what network it is of: name the network "
            "with --model and the file with --weights"
        )
    import_stored_parts(card.parts, path)
    check_network(path, card.architecture, card.model_args)
    return card


def card_of_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> ModelCard:
    """Build the model card of a checkpoint: the network from its hyperparameters, the rest from its data module.

    Args:
        checkpoint: Content of the file.
        path: The file, for messages.

    Raises:
        UserError: If a field is missing or invalid, or if network and data disagree.
    """
    stored = hyperparameters_of(checkpoint, path)
    parts = import_stored_parts(checkpoint.get(PARTS_KEY), path)
    check_hyperparameters(path, stored)
    size, channels = tuple(stored["img_size"]), stored["in_chans"]
    model_args = {**(stored.get("arch_options") or {}), **{name: stored[name] for name in DATA_ARGS}}
    if PATCH_SIZE in checkpoint:
        if not is_count(checkpoint[PATCH_SIZE]) or checkpoint[PATCH_SIZE] > max(size):
            raise UserError(f"{path}: {PATCH_SIZE} must be pixels up to the image's {max(size)}")
        model_args[PATCH_SIZE] = checkpoint[PATCH_SIZE]
    data = card_from_state(checkpoint, path)
    if data is None:
        return ModelCard(stored["arch"], model_args, None, (channels, *size), mean=(), std=(), parts=parts)
    if data.img_size != size:
        raise UserError(
            f"{path}: its network takes images of {_by(size)} pixels, but its data has {_by(data.img_size)}"
        )
    if data.in_chans != channels:
        raise UserError(
            f"{path}: its network takes images of {channels} channels, but its data has mean and standard deviation of "
            f"{data.in_chans}"
        )
    return replace(data, architecture=stored["arch"], model_args=model_args, parts=parts)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file that ``torch.save`` has written, with its tensors on the CPU.

    A file that has not changed since it was last read is not read again. Dictionaries and lists are copies; the tensors
    are shared with later callers, so clone those that are changed in place, as by an optimiser.

    Args:
        path: A file of any name.

    Raises:
        UserError: If there is no such file, if it is corrupt, if reading it would run code, or if it holds no
            dictionary.
    """
    try:
        content = _copied(_read_pickle(*_version(Path(path))))
    except (UserError, OSError):  # the message of an OSError, such as no permission, names the file
        raise
    except Exception as error:  # corrupt and hostile files raise many types
        kind = type(error).__name__  # torch's own message advises to run the code
        unread = f": it holds no weights that can be read without running code ({kind})"
        raise UserError(f"{path} is not a whole checkpoint{kind_hint(Path(path)) or unread}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights by name, as a checkpoint does, but a {type(content).__name__}")
    return content


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read header and tensors of a ``.safetensors`` file, cached and shared as those of :func:`read_checkpoint`.

    Raises:
        UserError: If there is no such file, or if it is corrupt.
    """
    try:
        metadata, tensors = _read_safetensors(*_version(Path(path)))
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{path} holds no weights that can be read: it is corrupt ({error})") from error
    return dict(metadata), dict(tensors)


def forget_files() -> None:
    """Clear the cache: a memory-mapped file keeps its disk space until then, even if it is deleted."""
    _read_pickle.cache_clear()
    _read_safetensors.cache_clear()


def _timm_card(name: str) -> ModelCard | None:
    with pretrained_weights(name):
        config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    names = config.label_names
    return ModelCard(
        architecture=name.partition(".")[0],
        model_args={},
        label_names=tuple(names) if isinstance(names, list | tuple) else None,
        input_size=tuple(config.input_size),
        mean=tuple(config.mean),
        std=tuple(config.std),
        crop_pct=config.crop_pct,
    )


def _version(path: Path) -> tuple[Path, int, int, int]:
    """Make the cache key of a file: its path, inode, size and time of change.

    Raises:
        UserError: If there is no such file, or if it is empty.
    """
    if path.is_dir():
        raise UserError(describe_missing(path))
    if not path.exists():
        raise UserError(f"file not found: {path}{path_hint(path)}")
    now = path.stat()
    if not now.st_size:
        raise UserError(f"{path} is empty: it is not a whole checkpoint")
    return path.resolve(), now.st_ino, now.st_size, now.st_mtime_ns


@functools.lru_cache(maxsize=CACHED_FILES)
def _read_pickle(path: Path, *_version: int) -> Any:
    with path.open("rb") as file:
        mapped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


@functools.lru_cache(maxsize=CACHED_FILES)
def _read_safetensors(path: Path, *_version: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(str(path), "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}


def _copied(value: Any) -> Any:
    """Copy all dictionaries and lists, which keep their types and attributes."""
    if isinstance(value, dict):
        mine = copy.copy(value)
        for name, each in value.items():
            mine[name] = _copied(each)
        return mine
    return [_copied(each) for each in value] if type(value) is list else value


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
