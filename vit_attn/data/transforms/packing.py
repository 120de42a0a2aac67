"""Transfer of arrays from the host to a device, all in one copy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

ALIGNMENT = 64
"""Bytes; compiled code first copies an input that does not begin at a multiple of 16."""
Array = Any  # an array on the host, a tensor on a device


def to_device(values: np.ndarray, device: torch.device | str) -> Tensor:
    """Copy an array to a device; the host does not wait for a GPU."""
    return pack_to_device((values,), device)[0]


def pack_to_device(parameters: tuple[Any, ...], device: torch.device | str) -> Any:
    """Copy all arrays of nested tuples to a device in one transfer, from pinned memory, so that the host does not wait.

    Args:
        parameters: Named or other tuples, nested, of arrays and None.
        device: The device. On the CPU the arrays are not copied.

    Returns:
        The same tuples of tensors, which are parts of one buffer.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return _share(parameters)
    leaves, structure = tree_flatten(parameters)
    arrays = [np.ascontiguousarray(each) for each in leaves if each is not None]
    starts = np.cumsum([0, *(-(-each.nbytes // ALIGNMENT) * ALIGNMENT for each in arrays)]).tolist()
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=kind == "cuda")
    parts = [slice(start, start + array.nbytes) for array, start in zip(arrays, starts[:-1], strict=True)]
    host = buffer.numpy()
    for array, part in zip(arrays, parts, strict=True):
        host[part].view(array.dtype)[:] = array.ravel()
    sent = buffer.to(device, non_blocking=True)
    tensors = (
        sent[part].view(torch.from_numpy(array).dtype).view(array.shape)
        for array, part in zip(arrays, parts, strict=True)
    )
    return tree_unflatten([None if each is None else next(tensors) for each in leaves], structure)


def _share(value: Any) -> Any:
    """Make tensors of arrays in nested tuples, without a copy, at less cost than torch's walk."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if not isinstance(value, tuple):
        return value
    parts = [_share(each) for each in value]
    return value._make(parts) if hasattr(value, "_make") else tuple(parts)
