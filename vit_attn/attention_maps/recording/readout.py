"""Which tokens a network's output is computed from, measured: the gradient of a random projection by the tokens."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit_attn.attention_maps.precision import shared
from vit_attn.attention_maps.recording.recording import AttentionCall
from vit_attn.attention_maps.recording.token_layout import UNKNOWN_POOL, TokenLayout

Calls = list[tuple[str, AttentionCall]]
LAST = 16
"""Modules that are remembered, since the last to give tokens may be one that nothing is read from."""
_thread = threading.local()
UNEQUAL = "unequal parts of its tokens"
DIFFERENCE = "a difference of its tokens"
SEVERAL = "tokens of several modules, not of the last alone"
TOLERANCE = 1e-2
"""Of the largest gradient: tokens of a mean have the same one, up to rounding in 16 bits."""


class TokenReadout:
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

    def checked(self, layout: TokenLayout, calls: Calls, output: Any) -> tuple[TokenLayout, Calls]:
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
                alone = read and not _reaches(pooled, calls[0][1].output, call.output)
                whole, name = call.k.shape[2] == layout.num_tokens, "map" if alone else UNKNOWN_POOL
                return layout._replace(global_pool=name, pool_include_prefix=whole), calls
            calls = calls[:-1]
        elif layout.pools_by_attention:
            return layout, calls
        found = ((each, _projected_gradient(pooled, each)) for each in reversed(tokens))
        last, gradient = next(((each, of) for each, of in found if of is not None), (None, None))
        if gradient is None or not gradient.any() or not gradient.isfinite().all():  # the last are told with the maps
            return layout, calls
        if _reaches(pooled, calls[0][1].output, last):
            return layout._replace(global_pool=SEVERAL, pooled=None), calls
        by_query = _projected_gradient(pooled, calls[-1][1].output)
        if by_query is not None and not torch.equal(_read(gradient), _read(by_query.transpose(1, 2).flatten(2))):
            return layout._replace(global_pool=UNEQUAL, pooled=None), calls  # it reads tokens in another way, too
        return _measured(layout, gradient), calls


def _open() -> list[TokenReadout]:
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


def _ends_with_one_query(calls: Calls, layout: TokenLayout) -> bool:
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


def _reaches(pooled: Tensor | None, first: Tensor | None, last: Tensor | None) -> bool:
    """Whether the output is computed from what the first attention gave by a way that leaves out the last tokens.

    The graph is only walked through, from the output to the last tokens.
    """
    if pooled is None or first is None or last is None or last is first:
        return False
    waiting, seen = [pooled.grad_fn], {last.grad_fn, None}
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        if node is first.grad_fn or getattr(node, "variable", None) is first:
            return True
        seen.add(node)
        waiting.extend(each for each, _ in node.next_functions)
    return False


def _read(gradient: Float[Tensor, "B N D"]) -> Bool[Tensor, " N"]:
    """Which tokens have a gradient."""
    sizes = gradient.abs().amax(dim=(0, 2))
    return sizes > 1e-6 * sizes.max()


def _measured(layout: TokenLayout, gradient: Float[Tensor, "B N D"]) -> TokenLayout:
    prefix, read = layout.num_prefix_tokens, _read(gradient).tolist()
    before, patches = read[:prefix], read[prefix:]
    if any(patches):
        if not all(patches) or not _equal(gradient[:, prefix:]):
            return layout._replace(global_pool=UNEQUAL, pooled=None)
        if not any(before) or (all(before) and _equal(gradient)):
            return layout._replace(global_pool="avg", pool_include_prefix=any(before), pooled=None)
    elif read == [True] + [False] * (len(read) - 1):
        return layout._replace(global_pool="token", pooled=None)
    return _mixed(layout, gradient, [token for token in range(prefix) if before[token]], any(patches))


def _mixed(layout: TokenLayout, gradient: Float[Tensor, "B N D"], asked: list[int], patches: bool) -> TokenLayout:
    """The layout where prefix tokens are read, beside each other or beside the mean over the patches."""
    prefix = layout.num_prefix_tokens
    parts = [gradient[:, token] for token in asked] + ([gradient[:, prefix:].sum(dim=1)] if patches else [])
    ratios = _ratios(torch.stack(parts).flatten(1))
    if ratios is not None and (ratios < 0).any():
        return layout._replace(global_pool=DIFFERENCE, pooled=None)
    if patches and asked == [0] and (ratios is None or (ratios - 0.5).abs().amax() <= TOLERANCE):
        return layout._replace(global_pool="token+avg", pool_include_prefix=False, pooled=None)
    if patches and ratios is None:
        return layout._replace(global_pool=UNEQUAL, pooled=None)
    ratios = torch.full((len(parts),), 1 / len(parts), dtype=torch.float32, device="cpu") if ratios is None else ratios
    row = torch.zeros(layout.num_tokens, dtype=torch.float32, device="cpu")
    row[asked] = ratios[: len(asked)]
    if patches:
        row[prefix:] = ratios[-1] / (layout.num_tokens - prefix)
    return layout._replace(global_pool="prefix" if not patches and len(asked) == prefix else "tokens", pooled=row)


def _ratios(parts: Float[Tensor, "parts _"]) -> Float[Tensor, " parts"] | None:
    """Each one's part of their sum, where all are multiples of one gradient: of a weighted sum; none where not."""
    most = parts[parts.abs().amax(dim=1).argmax()]
    multiples = (parts * most).sum(dim=1) / most.square().sum()
    apart = (parts - multiples[:, None] * most).abs().amax(dim=1)
    if (apart > TOLERANCE * parts.abs().amax(dim=1)).any():
        return None
    return (multiples / multiples.abs().sum()).cpu()


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
