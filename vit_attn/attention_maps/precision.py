"""Computation of maps in float32, whatever precision the caller has set, with an error for NaN and infinity."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from vit_attn.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")

_lock = threading.RLock()
_held: dict[Any, tuple[int, Callable[[], object]]] = {}


class NotFinite(UserError):
    """Error for NaN or infinity in a map, which images, weights or gradients brought in."""


@contextlib.contextmanager
def shared(key: Any, make: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """Hold a process-wide setting, made by the first thread that needs it and undone after the last.

    Args:
        key: Identifies the setting.
        make: Makes the setting and returns a function that undoes it.
    """
    with _lock:
        count, undo = _held[key] if key in _held else (0, make())
        _held[key] = count + 1, undo
    try:
        yield
    finally:
        with _lock:
            count, undo = _held.pop(key)
            if count > 1:
                _held[key] = count - 1, undo
            else:
                undo()


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Turn autocast and inference mode off inside the block."""
    with contextlib.ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to compute in float32, and to raise if its result is not finite.

    Raises:
        NotFinite: If a tensor that it returns holds NaN or infinity.
    """

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        with exact():
            result = function(*args, **kwargs)
            for value in result.values() if isinstance(result, dict) else [result]:
                check_finite(value)
        return result

    return computed


def check_finite(result: Any) -> None:
    """Check that a tensor holds no NaN or infinity.

    Raises:
        NotFinite: If it does.
    """
    if isinstance(result, Tensor) and not result.isfinite().all():
        raise NotFinite("the attention or its gradients hold NaN or infinity: check the images and the weights")


def kernel_dtype(x: Tensor) -> torch.dtype:
    """Data type in which fused attention computes this tensor; autocast converts its inputs."""
    kind = x.device.type
    if kind in AUTOCAST_DEVICES and torch.is_autocast_enabled(kind):
        if x.is_floating_point() and x.dtype != torch.float64:
            return torch.get_autocast_dtype(kind)
    return x.dtype


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product ``a @ b`` in full float32 precision, whatever the process has set for such products.

    Where products are in TF32 or bfloat16, it is computed in float64. The setting itself is left alone: it belongs to
    all threads, and compiled networks are compiled again when it changes.
    """
    return a @ b if products_are_full(a.device) else (a.double() @ b.double()).float()


def products_are_full(device: torch.device) -> bool:
    """Test for matrix products of float32 that are computed in float32 on this device."""
    backends: Any = torch.backends
    matmul = {"cuda": backends.cuda.matmul, "cpu": backends.mkldnn.matmul}.get(device.type)
    return matmul is None or matmul.fp32_precision in ("ieee", "none")  # none: as it is by default, in full
