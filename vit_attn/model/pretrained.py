"""Networks with pretrained weights, by their names in timm's registry."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm

from vit_attn.errors import UserError


def names_network(weights: str | Path) -> bool:
    """Tell whether this is the name of a network in timm's registry, with or without a tag, and not a file.

    >>> names_network("vit_small_patch16_224.augreg_in1k"), names_network("runs/vit/best.ckpt")
    (True, False)
    """
    return not Path(weights).exists() and timm.is_model(str(weights).partition(".")[0])


@contextlib.contextmanager
def pretrained_weights(name: str) -> Iterator[None]:
    """Turn errors of timm and the hub into one line: no connection, an unknown tag, or no weights.

    Args:
        name: Name of the network, for messages.

    Raises:
        UserError: If the block fails.
    """
    log = logging.getLogger("huggingface_hub.utils._http")  # logs each of its ten attempts
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # timm and the hub raise many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights of {name} cannot be had: {reason}; or name a file of them") from error
    finally:
        log.setLevel(level)


def changes_of_pretrained(net: Any, num_classes: int, img_size: tuple[int, int]) -> list[str]:
    """Changes that timm made to pretrained weights for this network, a sentence each.

    Args:
        net: The network, built by timm with ``pretrained=True``.
        num_classes: Its number of classes.
        img_size: Height and width of its images in pixels.
    """
    cfg, changes = getattr(net, "pretrained_cfg", {}), []
    before = tuple(cfg.get("input_size", (3, *img_size))[1:])
    if before != tuple(img_size):
        sizes = " to ".join(f"{height}x{width}" for height, width in (before, img_size))
        changes.append(f"positions were resampled from images of {sizes} pixels")
    if cfg.get("num_classes", num_classes) != num_classes:
        changes.append(head_warning(cfg["num_classes"], num_classes))
    return changes


def head_warning(before: int | str, after: int) -> str:
    """Sentence for a head that was not loaded, since its number of classes differs."""
    return f"the head of {before} classes was left out; the new one of {after} is untrained"
