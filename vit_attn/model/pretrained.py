"""Networks that come with weights of a hub, by their names in timm's registry."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm

from vit_attn.errors import UserError


def names_network(weights: str | Path) -> bool:
    """Whether this names a network of timm's registry, perhaps with a tag of its weights, and no file.

    >>> names_network("vit_small_patch16_224.augreg_in1k"), names_network("runs/vit/best.ckpt")
    (True, False)
    """
    return not Path(weights).exists() and timm.is_model(str(weights).partition(".")[0])


@contextlib.contextmanager
def pretrained_weights(name: str) -> Iterator[None]:
    """One line for what can go wrong with weights of a hub: no network, no such tag, no weights at all.

    Raises:
        UserError: If something does.
    """
    log = logging.getLogger("huggingface_hub.utils._http")  # which tells of each of its ten attempts
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the hub's and timm's many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights of {name} cannot be had: {reason}; or name a file of them") from error
    finally:
        log.setLevel(level)


def changes_of_pretrained(net: Any, num_classes: int, img_size: tuple[int, int]) -> list[str]:
    """What timm changed in weights of its own that were made for other classes or images, a sentence each."""
    cfg, changes = getattr(net, "pretrained_cfg", {}), []
    before = tuple(cfg.get("input_size", (3, *img_size))[1:])
    if before != tuple(img_size):
        sizes = " to ".join(f"{height}x{width}" for height, width in (before, img_size))
        changes.append(f"positions were resampled from images of {sizes} pixels")
    if cfg.get("num_classes", num_classes) != num_classes:
        changes.append(head_left_out(cfg["num_classes"], num_classes))
    return changes


def head_left_out(before: int | str, after: int) -> str:
    """What becomes of a head of other classes."""
    return f"the head of {before} classes was left out; the new one of {after} is untrained"
