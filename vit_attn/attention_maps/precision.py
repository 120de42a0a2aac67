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
    """Products in float32 as they are: no autocast, no inference mode, no TF32 or bfloat16 inside of them."""
    with contextlib.ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(shared("float32 products", _full_products))
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


def _full_products() -> Callable[[], object]:
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by backend, and then that is how it must be set
        return _full_products_by_backend()
    torch.set_float32_matmul_precision("highest")
    return lambda: torch.set_float32_matmul_precision(before)


def _full_products_by_backend() -> Callable[[], object]:
    backends: Any = torch.backends
    settings = [backends.cuda.matmul, backends.mkldnn.matmul]
    before = [setting.fp32_precision for setting in settings]

    def put(values: list[str]) -> None:
        for setting, value in zip(settings, values, strict=True):
            setting.fp32_precision = value

    put(["ieee"] * len(settings))
    return lambda: put(before)
