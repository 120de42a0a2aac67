"""Measurement of the pooling: the gradient of a random projection of the output with respect to the last tokens."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.layout import UNKNOWN_POOL, TokenLayout
from vit_attn.attention_maps.recording.pooling_gradient import (
    UNEQUAL_TOKENS,
    pooling_from_gradient,
    tokens_with_gradient,
)
from vit_attn.attention_maps.recording.token_order import TokenOrder, order_of

Calls = list[tuple[str, AttentionCall]]
MAX_CANDIDATES = 16
"""Module outputs that are remembered, since nothing may be read from the last one with all tokens."""
_thread = threading.local()
READS_PADDING = "tokens that only pad the images"
SEVERAL_MODULES = "tokens of several modules, not of the last alone"


class TokenReadout:
    """Keeps the last module outputs that hold all tokens, and measures how the network's output reads them.

    Args:
        maxlen: Number of module outputs to keep; None keeps all.
    """

    def __init__(self, maxlen: int | None = MAX_CANDIDATES) -> None:
        self.candidates: deque[Tensor] = deque(maxlen=maxlen)
        self.modules: set[nn.Module] = set()

    @contextlib.contextmanager
    def attached(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Keep outputs of these modules inside the ``with`` block, in this thread, once ``start`` is called."""
        self.modules = set(modules)
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            for module in self.modules:
                hook = module.register_forward_hook
                stack.enter_context(shared(("tokens", module), lambda hook=hook: hook(remember_tokens).remove))
            yield

    def start(self) -> None:
        """Forget earlier outputs and keep those of the forward that starts in this thread."""
        self._stop()
        _active().append(self)

    def _stop(self) -> None:
        self.candidates.clear()
        if self in _active():
            _active().remove(self)

    def measure(self, layout: TokenLayout, calls: Calls, output: Any) -> tuple[TokenLayout, Calls]:
        """Replace the declared pooling by the measured one, and drop a pool that the output does not depend on.

        Nothing can be measured where no graph was recorded, where the head is all zeros, or where the output is tokens.

        Args:
            layout: The layout that the network's class declares.
            calls: Attention calls of the forward.
            output: Its output.
        """
        total = layout.num_tokens + layout.num_padding_tokens
        features, tokens = _image_features(output), [x for x in self.candidates if x.shape[1] == total]
        self._stop()
        if _ends_with_single_query(calls, layout):
            call = calls[-1][1]
            used = _is_used(call, features)
            if used is None and layout.global_pool not in ("", UNKNOWN_POOL):
                used = layout.pools_by_attention
            if used is not False:
                alone = used and not _bypasses(features, calls[0][1].output, call.output)
                include_prefix = call.k.shape[2] == layout.num_tokens
                pool = "map" if alone else UNKNOWN_POOL
                return layout._replace(global_pool=pool, pool_include_prefix=include_prefix), calls
            calls = calls[:-1]
        elif layout.pools_by_attention:
            return _several_queries(layout, calls, features), calls
        return _measured_layout(layout, calls, features, tokens), calls


def remember_tokens(module: nn.Module, _inputs: Any, output: Any) -> None:
    """Keep a module's output if it may hold all tokens; a hook without state, since copied networks take it along."""
    if isinstance(output, Tensor) and output.ndim == 3 and output.requires_grad:
        for readout in _active():
            if module in readout.modules:
                readout.candidates.append(output)


def _active() -> list[TokenReadout]:
    """Readouts of the forwards of this thread."""
    if not hasattr(_thread, "active"):
        _thread.active = []
    return _thread.active


def _ends_with_single_query(calls: Calls, layout: TokenLayout) -> bool:
    """Tell whether the last attention has one query, and all others have more."""
    queries = [call.q.shape[2] for _, call in calls]
    return queries[-1] == 1 < layout.num_tokens and len(queries) > 1 and 1 not in queries[:-1]


def _several_queries(layout: TokenLayout, calls: Calls, features: Tensor | None) -> TokenLayout:
    """Layout of a network whose attention pool has several queries, with those that the output depends on."""
    last = calls[-1][1]
    gradient = None if last.output is None else _projected_gradient(features, last.output)
    if layout.global_pool not in ("map token", UNKNOWN_POOL) or gradient is None or not gradient.any():
        return layout
    read = tokens_with_gradient(gradient.transpose(1, 2).flatten(2)).tolist()
    alone = read == [True] + [False] * (len(read) - 1) and not _bypasses(features, calls[0][1].output, last.output)
    include_prefix = last.k.shape[2] == layout.num_tokens
    return layout._replace(global_pool="map token" if alone else UNKNOWN_POOL, pool_include_prefix=include_prefix)


def _is_used(call: AttentionCall, features: Tensor | None) -> bool | None:
    """Tell whether the output depends on an attention call; None where that cannot be measured."""
    if call.output is None or features is None or not features.requires_grad:
        return None
    gradient = _projected_gradient(features, call.output)
    return False if gradient is None else bool(gradient.any()) or None


def _projected_gradient(features: Tensor | None, tokens: Tensor | None) -> Tensor | None:
    """Gradient of a random projection of each image's features by the tokens; None if they do not depend on them."""
    if features is None or tokens is None or not features.requires_grad:
        return None
    generator = torch.Generator("cpu").manual_seed(0)  # of its own: the random state stays as it is
    projection = torch.randn(features.shape[-1], generator=generator, device="cpu", dtype=torch.float32)
    projection = projection.to(features.device, features.dtype)
    with torch.enable_grad():
        value = (features * projection).sum()
    (gradient,) = torch.autograd.grad(value, [tokens], retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.detach().float()


def _bypasses(features: Tensor | None, first: Tensor | None, last: Tensor | None) -> bool:
    """Tell whether the features depend on the first attention's output by a path around the last tokens.

    The graph is searched from the features, and not beyond the last tokens.
    """
    if features is None or first is None or last is None or last is first:
        return False
    waiting, seen = [features.grad_fn], {last.grad_fn, None}
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        if node is first.grad_fn or getattr(node, "variable", None) is first:
            return True
        seen.add(node)
        waiting.extend(each for each, _ in node.next_functions)
    return False


def _measured_layout(layout: TokenLayout, calls: Calls, features: Tensor | None, tokens: list[Tensor]) -> TokenLayout:
    """Layout with the pooling that the gradient by the last tokens shows; unchanged if there is no such gradient."""
    gradients = ((each, _projected_gradient(features, each)) for each in reversed(tokens))
    last, gradient = next(((each, of) for each, of in gradients if of is not None), (None, None))
    if gradient is None or not gradient.any() or not gradient.isfinite().all():  # NaN is reported with the maps
        return layout
    if (order := order_of(layout)) is not None:
        if _reads_padding(gradient, order):
            return layout._replace(global_pool=READS_PADDING, pooled=None)
        gradient = order.select(gradient, 1)
    if _bypasses(features, calls[0][1].output, last):
        return layout._replace(global_pool=SEVERAL_MODULES, pooled=None)
    by_query = _projected_gradient(features, calls[-1][1].output)
    if by_query is not None:
        query_tokens = tokens_with_gradient(by_query.transpose(1, 2).flatten(2))
        if not torch.equal(tokens_with_gradient(gradient), query_tokens):  # tokens are read in another way, too
            return layout._replace(global_pool=UNEQUAL_TOKENS, pooled=None)
    return pooling_from_gradient(layout, gradient)


def _reads_padding(gradient: Float[Tensor, "B N D"], order: TokenOrder) -> bool:
    """Tell whether the output depends on a token that the layout leaves out."""
    return bool(order.put_back(gradient[:, None], torch.zeros_like(order.select(gradient[:, None], 2))).any())


def _image_features(output: Any) -> Tensor | None:
    """Find the tensor (B, features) in a network's output: logits, or a pooler's output."""
    named = [getattr(output, name, None) for name in ("logits", "pooler_output", "image_embeds")]
    listed = list(output) if isinstance(output, (tuple, list)) else []
    found = (x for x in (output, *named, *listed) if isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point())
    return next(found, None)
