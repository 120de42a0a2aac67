"""Torch function mode that passes each attention call of a thread to the interceptors of the running networks."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vit_attn.attention_maps.recording.head_axes import HeadAxes
from vit_attn.attention_maps.recording.inputs import Inputs, count_images
from vit_attn.attention_maps.recording.positions import PositionTracer
from vit_attn.attention_maps.recording.sdpa_call import SDPA_ARGUMENTS, SDPACall, bind_call
from vit_attn.attention_maps.recording.softmax_call import (
    SOFTMAXES,
    FollowedSoftmax,
    SoftmaxCall,
    is_softmax_of_rows,
    softmax_input,
)
from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention

FUSED = frozenset({F.scaled_dot_product_attention, hard_attention})
WATCHED = frozenset({*FUSED, F.multi_head_attention_forward, *SOFTMAXES})
"""Functions that may be an attention, or its beginning; no other is looked at outside of one."""
UNSUPPORTED = ("bias_k", "bias_v", "static_k", "static_v")
"""Arguments of ``F.multi_head_attention_forward`` that are refused."""


@runtime_checkable
class CallObserver(Protocol):
    """Receiver of the attention calls of one network."""

    called_modules: list[str]
    """Names of the modules that attended in this forward, in order."""
    changed_weights: dict[str, str]
    """Errors about weights that were changed after their softmax, by the module that did it."""
    images: Inputs
    """Images of this forward."""
    tracer: PositionTracer | None
    """Follows the tokens of a network that attends within windows."""

    @property
    def current_module(self) -> str:
        """Name of the attention module that runs now, or "" outside of them."""
        ...

    def before_attention(self, name: str, call: SDPACall) -> None:
        """Change the call before it is computed."""
        ...

    def after_attention(self, name: str, call: SDPACall, output: Tensor) -> Tensor:
        """Return the output that the network goes on with."""
        ...


class SDPAMode(TorchFunctionMode):
    """Passes the attention calls of this thread to the observers of the networks that run in it."""

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[CallObserver] = []
        self.tracers: list[PositionTracer] = []
        self.softmaxes: list[tuple[FollowedSoftmax, Observed]] = []

    def add(self, observer: CallObserver) -> None:
        """Start observing; the mode is entered with the first observer."""
        self.remove(observer)  # if it was interrupted before
        if not self.observers:
            self.__enter__()
        self.observers.append(observer)
        self._find_tracers()

    def remove(self, observer: CallObserver) -> None:
        """Stop observing; the mode is left with the last observer."""
        if observer in self.observers:
            self.observers.remove(observer)
            self._find_tracers()
            if not self.observers:
                self.softmaxes = []
                self.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in WATCHED and not self.softmaxes and not self.tracers:
            return func(*args, **(kwargs or {}))
        result = self._call(func, args, kwargs or {})
        for tracer in self.tracers:
            tracer.follow(func, args, kwargs or {}, result)
        return result

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in FUSED:
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(inspect.signature(func).bind(*args, **kwargs).arguments)
        if is_softmax_of_rows(func, args, kwargs) and (observed := [each for each in self._observed() if each[1]]):
            return self._softmax(observed, func, args, kwargs)
        for softmax, _ in self.softmaxes:
            return softmax.call_function(func, args, kwargs)
        return func(*args, **kwargs)

    def leave_module(self) -> None:
        """Stop following the weights of the attention module that ends, and tell the observers what became of them."""
        for softmax, observed in self.softmaxes:
            message = softmax.check_used()
            for observer, name in observed if message else ():
                if observer.called_modules.count(name) > 1 and not softmax.call.is_cut:
                    observer.called_modules.remove(name)  # the module attends otherwise, and this is no attention
                else:
                    observer.changed_weights[name] = message
        self.softmaxes = []

    def _fused(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Compute fused or hard attention; that of windows may have other axes than images, heads and tokens."""
        arguments: dict[str, Any] = dict(zip(SDPA_ARGUMENTS, args, strict=False)) | kwargs
        sources = arguments.get("query"), arguments.get("value")
        axes = next((tracer.head_axes(sources[1]) for tracer in self.tracers), None)
        if axes is not None:
            arguments = {name: axes.split(x) if isinstance(x, Tensor) else x for name, x in arguments.items()}
        call = bind_call(func is hard_attention, self._location(), **arguments)
        call.sources = sources
        if axes is None:
            return self._attend(call, lambda: func(*args, **kwargs))
        return axes.join(self._attend(call, lambda: func(**arguments)))

    def _attend(self, call: SDPACall, original: Callable[[], Tensor] | None = None) -> Tensor:
        observed = self._observed()
        _before_attention(call, observed)
        return _after_attention(call, call.compute(original), observed)

    def _softmax(
        self, observed: "Observed", func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Compute the softmax of an attention that is written out, and follow its weights."""
        scores = softmax_input(args, kwargs)
        traced = next((tracer.head_axes(scores) for tracer in self.tracers), None)
        axes = traced or _head_axes(scores, count_images(observed[0][0].images))
        if axes is None:
            return func(*args, **kwargs)
        rest, options = args[1:], {name: value for name, value in kwargs.items() if name != "input"}
        call = SoftmaxCall(scores, axes)
        has_attended = any(name in observer.called_modules for observer, name in observed)
        if not has_attended:
            _before_attention(call, observed)
        weights = call.softmax(scores, lambda changed: func(changed, *rest, **options))
        self.leave_module()  # no softmax before this one is that of the module's attention
        attended = functools.partial(_count_again if has_attended else _after_attention, observed=observed)
        followed = FollowedSoftmax(
            call=call,
            where=self._location(),
            attended=attended,
            forms=[(weights, False)],
            is_guessed=traced is None and axes.is_merged,
            is_ambiguous=traced is None and not axes.is_merged,
            may_be_unused=has_attended,
        )
        self.softmaxes = [(followed, observed)]
        return weights

    def _find_tracers(self) -> None:
        self.tracers = [each.tracer for each in self.observers if each.tracer is not None]

    def _observed(self) -> "Observed":
        return [(each, each.current_module) for each in self.observers]

    def _location(self) -> str:
        name = self.observers[-1].current_module
        return f" in {name}" if name else ""

    def _multi_head(self, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Compute ``nn.MultiheadAttention`` from an attention call that observers see."""
        _check_multi_head(arguments)
        width, heads = arguments["embed_dim_to_check"], arguments["num_heads"]
        q, k, v = (x.unflatten(-1, (heads, width // heads)).permute(1, 2, 0, 3) for x in _project(arguments, width))
        dropout = arguments["dropout_p"] if arguments["training"] else 0.0
        mask = _mask(arguments, q.shape[0])
        call = bind_call(False, self._location(), q, k, v, attn_mask=mask, dropout_p=dropout)
        mixed = self._attend(call).permute(2, 0, 1, 3).flatten(2)  # (N, B, D)
        weights = None
        if arguments.get("need_weights", True):
            weights = call.weights()
            weights = weights.mean(dim=1) if arguments.get("average_attn_weights", True) else weights
        return F.linear(mixed, arguments["out_proj_weight"], arguments["out_proj_bias"]), weights


Observed = Sequence[tuple[CallObserver, str]]
"""Observers, each with the name of the module that attends."""


def _before_attention(call: SDPACall, observed: Observed) -> None:
    for observer, name in observed:
        observer.called_modules.append(name)
        observer.before_attention(name, call)


def _after_attention(call: SDPACall, output: Tensor, observed: Observed) -> Tensor:
    for observer, name in observed:
        output = observer.after_attention(name, call, output)
    return output


def _count_again(call: SDPACall, output: Tensor, observed: Observed) -> Tensor:
    """Note that a module attends once more, which each observer refuses in the end."""
    for observer, name in observed:
        observer.called_modules.append(name)
    return output


def _head_axes(scores: Tensor, images: int) -> HeadAxes | None:
    """Find the heads of scores of the usual forms; None if images and heads cannot share the first axis."""
    if scores.ndim == 4:
        return HeadAxes((scores.shape[0], scores.shape[1]), scores.shape[1])
    fits = scores.ndim == 3 and scores.shape[0] % images == 0
    return HeadAxes((scores.shape[0],), scores.shape[0] // images) if fits else None


def _check_multi_head(arguments: dict[str, Any]) -> None:
    if arguments["add_zero_attn"] or arguments["key"] is not arguments["value"] or arguments["query"].ndim != 3:
        raise UserError("nn.MultiheadAttention is seen with a batch, and with keys and values of one source only")
    if found := [name for name in UNSUPPORTED if arguments.get(name) is not None]:
        raise UserError(f"nn.MultiheadAttention is not seen through with {', '.join(found)}")


def _project(arguments: dict[str, Any], width: int) -> tuple[Tensor, ...]:
    """Project queries, keys and values, each (N, B, D); in an attention pool the queries have another source."""
    query, source, weight, bias = (arguments[name] for name in ("query", "key", "in_proj_weight", "in_proj_bias"))
    if query is source and weight is not None:
        return F.linear(query, weight, bias).split(width, dim=-1)
    weights = weight.split(width) if weight is not None else [arguments[f"{name}_proj_weight"] for name in "qkv"]
    biases = (None,) * 3 if bias is None else bias.split(width)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, source, source), weights, biases, strict=True))


def _mask(arguments: dict[str, Any], batch: int) -> Tensor | None:
    """Mask (B or 1, H or 1, M, N) that is added to the scores, of both masks of the module."""
    query, heads = arguments["query"], arguments["num_heads"]
    attn_mask, padding = (_additive(arguments.get(name), query) for name in ("attn_mask", "key_padding_mask"))
    if attn_mask is not None:
        attn_mask = attn_mask.unflatten(0, (batch, heads)) if attn_mask.ndim == 3 else attn_mask[None, None]
    padding = None if padding is None else padding[:, None, None]
    if attn_mask is None or padding is None:
        return padding if attn_mask is None else attn_mask
    return attn_mask + padding


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Turn a mask of this module, true where attention is not allowed, into one that is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask, -torch.inf)
