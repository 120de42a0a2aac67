"""Maps are computed in float32, whatever the caller has set for products in networks, and never hold NaN in silence."""

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
    """A map would hold NaN or infinity: the images, the weights or the gradients do."""


@contextlib.contextmanager
def shared(key: Any, make: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """Hold a setting of the process, made by the first thread that needs it and undone after the last.

    Args:
        key: Which setting.
        make: Makes it and returns what undoes it.
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
    """No autocast and no inference mode inside."""
    with contextlib.ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function compute in float32 and refuse a result that is not finite.

    Raises:
        NotFinite: If a tensor that it returns holds NaN or infinity.
    """

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        with exact():
            result = function(*args, **kwargs)
            for each in result.values() if isinstance(result, dict) else [result]:
                check_finite(each)
        return result

    return computed


def check_finite(result: Any) -> None:
    """Refuse a tensor with NaN or infinity.

    Raises:
        NotFinite: If there is one.
    """
    if isinstance(result, Tensor) and not result.isfinite().all():
        raise NotFinite("the attention or its gradients hold NaN or infinity: check the images and the weights")


def kernel_dtype(x: Tensor) -> torch.dtype:
    """What fused attention computes this tensor in: autocast converts what it is given."""
    kind = x.device.type
    if kind in AUTOCAST_DEVICES and torch.is_autocast_enabled(kind):
        if x.is_floating_point() and x.dtype != torch.float64:
            return torch.get_autocast_dtype(kind)
    return x.dtype


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of float32, with no less precision, whatever the process has set for such products.

    Where products are in TF32 or bfloat16, this one is in float64: the setting is left alone, since it belongs to all
    threads, and compiled networks are compiled anew when it changes.
    """
    return a @ b if products_are_full(a.device) else (a.double() @ b.double()).float()


def products_are_full(device: torch.device) -> bool:
    """Whether products of float32 are computed in it."""
    backends: Any = torch.backends
    matmul = {"cuda": backends.cuda.matmul, "cpu": backends.mkldnn.matmul}.get(device.type)
    return matmul is None or matmul.fp32_precision == "ieee"
