"""Torch function mode that passes each attention call of a thread to the interceptors of the running networks."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vit_attn.attention_maps.recording.sdpa_call import SDPA_ARGUMENTS, SDPACall, bind_call
from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention

UNSUPPORTED = ("bias_k", "bias_v", "static_k", "static_v")
"""Arguments of ``F.multi_head_attention_forward`` that are refused."""


@runtime_checkable
class CallObserver(Protocol):
    """Receiver of the attention calls of one network."""

    called_modules: list[str]
    """Names of the modules that attended in this forward, in order."""

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

    def add(self, observer: CallObserver) -> None:
        """Start observing; the mode is entered with the first observer."""
        self.remove(observer)  # if it was interrupted before
        if not self.observers:
            self.__enter__()
        self.observers.append(observer)

    def remove(self, observer: CallObserver) -> None:
        """Stop observing; the mode is left with the last observer."""
        if observer in self.observers:
            self.observers.remove(observer)
            if not self.observers:
                self.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.scaled_dot_product_attention, hard_attention):
            arguments = dict(zip(SDPA_ARGUMENTS, args, strict=False)) | kwargs
            call = bind_call(func is hard_attention, self._location(), **arguments)
            return self._attend(call, lambda: func(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            return self._multi_head(inspect.signature(func).bind(*args, **kwargs).arguments)
        return func(*args, **kwargs)

    def _attend(self, call: SDPACall, original: Callable[[], Tensor] | None = None) -> Tensor:
        observers: Sequence[tuple[CallObserver, str]] = [(each, each.current_module) for each in self.observers]
        for observer, name in observers:
            observer.called_modules.append(name)
            observer.before_attention(name, call)
        output = call.compute(original)
        for observer, name in observers:
            output = observer.after_attention(name, call, output)
        return output

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
