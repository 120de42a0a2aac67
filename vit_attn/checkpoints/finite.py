"""Check for NaN and infinity in weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vit_attn.errors import UserError


def refuse_not_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """Refuse weights with NaN or infinity, which a diverged training leaves behind.

    Args:
        state: Tensors by name; other values are ignored.
        path: The file, for messages.

    Raises:
        UserError: If there are any, with the tensor's name and how many of its numbers are not finite.
    """
    broken = [name for name, tensor in state.items() if isinstance(tensor, Tensor) and not _is_finite(tensor)]
    if broken:
        first = state[broken[0]]
        count = int((~torch.isfinite(first.double())).sum())
        others = f", and so have {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        raise UserError(
            f"{path}: {broken[0]} has NaN or infinity in {count} of its {first.numel()} numbers{others}: the training "
            "that wrote it diverged, so take an earlier checkpoint, or train again with a smaller learning rate"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Return true if all numbers are finite, in one pass without a copy: NaN reaches both bounds of ``aminmax``."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    tensor = tensor.detach() if tensor.element_size() > 1 else tensor.detach().float()  # float8 has no comparison
    return all(bool(bound.isfinite()) for bound in tensor.aminmax())
