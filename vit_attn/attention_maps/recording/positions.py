"""Positions of a grid's tokens, followed through the functions that a network moves them with into windows."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int32
from torch import Tensor, nn

from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording.head_axes import HeadAxes

MOVING = frozenset(
    {
        *(Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.unflatten, torch.unflatten),
        *(Tensor.permute, torch.permute, Tensor.transpose, torch.transpose, Tensor.roll, torch.roll, F.pad),
        *(Tensor.__getitem__, Tensor.unbind, torch.unbind, Tensor.chunk, torch.chunk, Tensor.split, torch.split),
        *(Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze),
    }
)
"""Functions that move tokens and do not change them."""
IN_PLACE_OF: dict[Any, Callable[..., Any]] = {Tensor.view: Tensor.reshape}
PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})
POOLING = frozenset({Tensor.amax, torch.amax, F.max_pool2d, torch.max_pool2d})
"""Functions that pool tokens that are next to each other; the first of them stands for all."""
POINTWISE = frozenset(
    {
        *(F.layer_norm, torch.layer_norm, F.rms_norm, F.linear, F.normalize, F.dropout, torch.dropout),
        *(Tensor.contiguous, Tensor.clone, Tensor.to, Tensor.float, Tensor.type_as, Tensor.mul, Tensor.__mul__),
        *(Tensor.add, Tensor.__add__, torch.mul, torch.add, Tensor.div, Tensor.__truediv__, torch.div),
    }
)
"""Functions that compute each token from the same token alone; of two tensors, the second is a parameter."""
_thread = threading.local()


class PositionTracer:
    """Knows where each token of a tensor was on the grid of its stage, as long as tokens are only moved.

    A tensor of numbers, 1 for the first image's first token, goes through the same moves; padding is 0.

    Args:
        modules: Modules around the attention modules, whose inputs are grids of tokens.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules, self.images = set(modules), 0
        self.grid_size = (0, 0)
        self.known: list[tuple[Tensor, Tensor]] = []

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the inputs of the modules inside the ``with`` block, in this thread, once ``start`` is called."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            for module in self.modules:
                stack.enter_context(shared(("positions", module), lambda module=module: _register(module)))
            yield

    def start(self, images: int) -> None:
        """Follow the tokens of the forward that starts in this thread."""
        self.stop()
        self.images = images
        _active().append(self)

    def stop(self) -> None:
        """Forget all tokens."""
        self.known = []
        if self in _active():
            _active().remove(self)

    def enter(self, module: nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Start from the tokens that enter a module: (B, rows, cols, D), or (B, N, D) with rows and columns beside.

        Other tokens that enter it are followed on, and what was before it is forgotten.
        """
        given = [*inputs, *keywords.values()]
        tokens = next((each for each in given if isinstance(each, Tensor)), None)
        if tokens is None or tokens.shape[0] != self.images:
            return
        sizes = (each for each in (*given, getattr(module, "size", None)) if isinstance(each, (tuple, list)))
        grids = (size for size in sizes if len(size) == 2 and all(isinstance(side, int) for side in size))
        grid = next((size for size in grids if tokens.ndim == 3 and math.prod(size) == tokens.shape[1]), None)
        if grid is None and tokens.ndim != 4:
            self.known = [pair for pair in self.known if pair[0] is tokens]
            return
        self.grid_size = (tokens.shape[1], tokens.shape[2]) if grid is None else (grid[0], grid[1])
        numbers = torch.arange(1, 1 + math.prod(tokens.shape[:-1]), dtype=torch.int32, device=tokens.device)
        self.known = [(tokens, numbers.reshape(*tokens.shape[:-1], 1).expand(tokens.shape))]

    def follow(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Follow the tokens of a function's first argument into its result."""
        numbers = self.numbers(args[0]) if self.known and args else None
        if numbers is None:
            return
        if func in MOVING:
            if func is F.pad and not _pads_with_zeros(args, kwargs):
                return
            moved = IN_PLACE_OF.get(func, func)(numbers, *args[1:], **kwargs)
            pairs = [(result, moved)] if isinstance(result, Tensor) else zip(result, moved, strict=True)
            self.known.extend(pairs)
        elif func in PRODUCTS and isinstance(result, Tensor) and result.shape[:-1] == numbers.shape[:-1]:
            self.known.append((result, numbers[..., :1].expand(result.shape)))  # a score is its query's
        elif func in POOLING:
            first = func(numbers.neg().double(), *args[1:], **kwargs).neg()
            self.known.append((result, first.int()))
        elif func in POINTWISE and isinstance(result, Tensor) and result.shape[:-1] == numbers.shape[:-1]:
            if all(self.numbers(each) is None for each in args[1:]):
                self.known.append((result, numbers[..., :1].expand(result.shape)))

    def head_axes(self, values: Any) -> HeadAxes | None:
        """Find the axis of the heads, along which values come from the same tokens; None if it is not known."""
        numbers = self.numbers(values)
        if numbers is None or not 3 <= numbers.ndim <= 5:
            return None
        numbers, before = numbers[..., 0], tuple(numbers.shape[:-2])
        if len(before) == 1:  # heads of one window follow each other
            same = (numbers == numbers[0]).all(dim=-1).tolist()
            return HeadAxes(before, same.index(False) if False in same else len(same))
        constant = [axis for axis in range(1, len(before)) if bool((numbers == numbers.narrow(axis, 0, 1)).all())]
        return HeadAxes(before, before[constant[-1]], constant[-1]) if constant else None

    def numbers(self, tensor: Any) -> Int32[Tensor, "..."] | None:
        """Get the numbers of a tensor's tokens, of the tensor's shape; None if they are not known."""
        return next((numbers for known, numbers in self.known if known is tensor), None)


def locate_tokens(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Note the grid of tokens that enters a module; a hook without state, since copied networks take it along."""
    for tracer in _active():
        if module in tracer.modules:
            tracer.enter(module, inputs, keywords)


def _register(module: nn.Module) -> Callable[[], object]:
    return module.register_forward_pre_hook(locate_tokens, with_kwargs=True).remove


def _active() -> list[PositionTracer]:
    """Tracers of the forwards of this thread."""
    if not hasattr(_thread, "active"):
        _thread.active = []
    return _thread.active


def _pads_with_zeros(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    return mode == "constant" and not (args[3] if len(args) > 3 else kwargs.get("value"))
