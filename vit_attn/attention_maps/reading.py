"""Which tokens a network's output is computed from, measured: the gradient of a random projection by the tokens."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit_attn.attention_maps.layout import UNKNOWN_POOL, Layout
from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording import AttentionCall

Calls = list[tuple[str, AttentionCall]]
LAST = 16
"""Modules that are remembered, since the last to give tokens may be one that nothing is read from."""
_thread = threading.local()
UNEQUAL = "unequal parts of its tokens"
TOLERANCE = 1e-2
"""Of the largest gradient: tokens of a mean have the same one, up to rounding in 16 bits."""


class TokenReading:
    """Watches for the last modules that give all tokens, and says how the output reads them."""

    def __init__(self, most: int | None = LAST) -> None:
        self.last: deque[Tensor] = deque(maxlen=most)
        self.parts: set[nn.Module] = set()

    @contextlib.contextmanager
    def watching(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """See what each module gives in this thread inside the ``with`` block, once ``begin`` is called."""
        self.parts = set(modules)
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            for module in self.parts:
                hook = module.register_forward_hook
                stack.enter_context(shared(("tokens", module), lambda hook=hook: hook(tokens_given).remove))
            yield

    def begin(self) -> None:
        """A forward begins in this thread."""
        self._end()
        _open().append(self)

    def _end(self) -> None:
        self.last.clear()
        if self in _open():
            _open().remove(self)

    def checked(self, layout: Layout, calls: Calls, output: Any) -> tuple[Layout, Calls]:
        """The layout with what was measured in place of what the class says, and the calls without a pool for nobody.

        Nothing can be measured where no graph was recorded, where the head is all zeros, or where the output is tokens.
        """
        pooled, tokens = _pooled(output), [each for each in self.last if each.shape[1] == layout.num_tokens]
        self._end()
        if _ends_with_one_query(calls, layout):
            call = calls[-1][1]
            read = _is_read(call, pooled)
            if read is None and layout.global_pool not in ("", UNKNOWN_POOL):
                read = layout.pools_by_attention
            if read is not False:
                whole, name = call.k.shape[2] == layout.num_tokens, "map" if read else UNKNOWN_POOL
                return layout._replace(global_pool=name, pool_include_prefix=whole), calls
            calls = calls[:-1]
        elif layout.pools_by_attention:
            return layout, calls
        gradients = (_projected_gradient(pooled, each) for each in reversed(tokens))
        gradient = next((each for each in gradients if each is not None), None)
        if gradient is None or not gradient.any():
            return layout, calls
        by_query = _projected_gradient(pooled, calls[-1][1].output)
        if by_query is not None and not torch.equal(_read(gradient), _read(by_query.transpose(1, 2).flatten(2))):
            return layout._replace(global_pool=UNEQUAL, pooled=None), calls  # it reads tokens in another way, too
        return _measured(layout, gradient), calls


def _open() -> list[TokenReading]:
    """What reads a forward of this thread."""
    if not hasattr(_thread, "open"):
        _thread.open = []
    return _thread.open


def tokens_given(module: nn.Module, _inputs: Any, output: Any) -> None:
    """Keep what a module gave if it may be all tokens; a hook without a state, as copied networks take it along."""
    if isinstance(output, Tensor) and output.ndim == 3 and output.requires_grad:
        for each in _open():
            if module in each.parts:
                each.last.append(output)


def _ends_with_one_query(calls: Calls, layout: Layout) -> bool:
    """Whether the last attention has one query, where all others have many."""
    asking = [call.q.shape[2] for _, call in calls]
    return asking[-1] == 1 < layout.num_tokens and len(asking) > 1 and 1 not in asking[:-1]


def _is_read(call: AttentionCall, pooled: Tensor | None) -> bool | None:
    """Whether what a call gave has a part in the output; none where that cannot be measured."""
    if call.output is None or pooled is None or not pooled.requires_grad:
        return None
    gradient = _projected_gradient(pooled, call.output)
    return False if gradient is None else bool(gradient.any()) or None


def _projected_gradient(pooled: Tensor | None, tokens: Tensor | None) -> Tensor | None:
    """The gradient of a random projection of what is said of each image; none where there is no way to it."""
    if pooled is None or tokens is None or not pooled.requires_grad:
        return None
    generator = torch.Generator("cpu").manual_seed(0)  # of its own: the random state stays as it is
    projection = torch.randn(pooled.shape[-1], generator=generator, device="cpu", dtype=torch.float32)
    projection = projection.to(pooled.device, pooled.dtype)
    with torch.enable_grad():
        value = (pooled * projection).sum()
    (gradient,) = torch.autograd.grad(value, [tokens], retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.detach().float()


def _read(gradient: Float[Tensor, "B N D"]) -> Bool[Tensor, " N"]:
    """Which tokens have a gradient."""
    sizes = gradient.abs().amax(dim=(0, 2))
    return sizes > 1e-6 * sizes.max()


def _measured(layout: Layout, gradient: Float[Tensor, "B N D"]) -> Layout:
    prefix, read = layout.num_prefix_tokens, _read(gradient).tolist()
    before, patches = read[:prefix], read[prefix:]
    if not any(patches):
        if read == [True] + [False] * (len(read) - 1):
            return layout._replace(global_pool="token", pooled=None)
        row = torch.tensor(read, dtype=torch.float32, device="cpu")
        return layout._replace(global_pool="prefix" if all(before) else "tokens", pooled=row / row.sum())
    if not all(patches) or not _equal(gradient[:, prefix:]):
        return layout._replace(global_pool=UNEQUAL, pooled=None)
    if not any(before):
        return layout._replace(global_pool="avg", pool_include_prefix=False, pooled=None)
    if all(before) and _equal(gradient):
        return layout._replace(global_pool="avg", pool_include_prefix=True, pooled=None)
    if before == [True] + [False] * (prefix - 1):
        return layout._replace(global_pool="token+avg", pool_include_prefix=False, pooled=None)
    return layout._replace(global_pool=UNEQUAL, pooled=None)


def _equal(gradient: Float[Tensor, "B N D"]) -> bool:
    """Whether the tokens of each image have the same gradient."""
    mean = gradient.mean(dim=1, keepdim=True)
    return bool((gradient - mean).abs().amax() <= TOLERANCE * mean.abs().amax())


def _pooled(output: Any) -> Tensor | None:
    """What the network says of each image, of all that it returned: logits, or what its pooler gave."""
    named = [getattr(output, name, None) for name in ("logits", "pooler_output", "image_embeds")]
    listed = list(output) if isinstance(output, (tuple, list)) else []
    found = (x for x in (output, *named, *listed) if isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point())
    return next(found, None)
