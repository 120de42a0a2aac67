"""Checks of the weights to save, the disk space they need, and the file that was written."""

from pathlib import Path

import torch
from torch import nn

from vit_attn.errors import TrainingFailed


def all_finite(module: nn.Module) -> bool:
    """Return true if all parameters and buffers, such as running means, are finite."""
    tensors = (*module.parameters(), *module.buffers())
    weights = [each.detach() for each in tensors if each.numel() and each.is_floating_point()]
    weights = [each.to_local() if hasattr(each, "to_local") else each for each in weights]
    return all(bool(largest.isfinite()) for largest in torch._foreach_norm(weights, float("inf")))


def checkpoint_bytes(module: nn.Module) -> int:
    """Estimate the size of one checkpoint: weights, averages, and two optimiser states of the same size."""
    return 4 * sum(each.numel() * each.element_size() for each in module.parameters())


def check_readable(path: Path) -> None:
    """Read a checkpoint that was just written.

    Raises:
        TrainingFailed: If it cannot be read, because some callback saves what a checkpoint must not hold.
    """
    try:
        torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except Exception as error:
        raise TrainingFailed(
            f"{path} cannot be read back: some callback keeps a state that is not made of numbers, texts and tensors "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
