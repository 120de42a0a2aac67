"""Counter of the operations that a piece of code launches, and of those for which the host would wait for a GPU."""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
"""Operations that write nothing, beside views."""
WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "allclose", "bincount"),
    *("unique_dim", "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2", "repeat_interleave"),
}
"""Operations whose result, or its shape, the host reads from the device."""
READS = {Tensor.numpy, Tensor.cpu, Tensor.tolist}
"""Methods that read from the device, and of which a CPU's dispatcher sees nothing."""


class OpCounter(TorchDispatchMode):
    """Counts, inside its ``with`` block, what PyTorch's dispatcher sees; on the CPU the same as on a GPU.

    Attributes:
        ops: Number of operations that launch something, by name; views and allocations do not.
        reads: Number of operations and methods for which the host would wait for a GPU, by name.
        copies: Number of copies from one device to another, by name.
        places: Number of those reads and copies, by name and line of code.
        own_reads: Whether ``numpy()``, ``cpu()`` and ``tolist()`` count as waits; not where the code has tensors that
            are on the host in any case.
    """

    def __init__(self, own_reads: bool = False) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self._methods = _MethodCounter(self.reads, self.places) if own_reads else None

    @property
    def launches(self) -> int:
        """Number of operations that launch something."""
        return self.ops.total()

    @property
    def waits(self) -> int:
        """Number of times the host would wait for a GPU."""
        return self.reads.total()

    @property
    def transfers(self) -> int:
        """Number of copies from one device to another."""
        return self.copies.total()

    def __enter__(self) -> "OpCounter":
        if self._methods is not None:
            self._methods.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if self._methods is not None:
            self._methods.__exit__(*exception)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        result = func(*args, **(kwargs or {}))
        if name in WAITING or (name in ("index", "index_put", "index_put_") and _has_boolean_index(args[1])):
            self.reads[name] += 1
            self.places[_place(name)] += 1
        elif (
            name in ("_to_copy", "copy_") and len({_device(each) for each in (result, args[0], *args[1:2])} - {""}) > 1
        ):
            self.copies[name] += 1
            self.places[_place(name)] += 1
        if name not in ALLOCATIONS and not _is_view(func):
            self.ops[name] += 1
        return result


class _MethodCounter(TorchFunctionMode):
    def __init__(self, reads: Counter[str], places: Counter[str]) -> None:
        super().__init__()
        self.reads, self.places = reads, places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.reads[func.__name__] += 1
            self.places[_place(func.__name__)] += 1
        return func(*args, **(kwargs or {}))


def _is_view(func: OpOverload) -> bool:
    """Return true if the result shares an argument's memory and nothing is written."""
    aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


def _has_boolean_index(indices: Any) -> bool:
    """Return true if an index is a mask, whose positions the host has to know."""
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices)


def _device(value: Any) -> str:
    return value.device.type if isinstance(value, Tensor) else ""


def _place(name: str) -> str:
    """Name an operation with the innermost line of code that is neither here nor in torch."""
    frames = (each for each in reversed(traceback.extract_stack()) if each.filename != __file__)
    frame = next((each for each in frames if "/torch/" not in each.filename), None)
    return name if frame is None else f"{name} at {Path(frame.filename).name}:{frame.lineno} {frame.line}"
