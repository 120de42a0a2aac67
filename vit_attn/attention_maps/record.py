"""``with record(net) as recording: net(images)`` keeps what every attention of the network was computed from.

Networks call fused attention, which never forms its weights. The recorder listens to those calls and keeps queries,
keys, values and outputs; the weights are computed from them when asked for, one layer at a time. The network is not
changed: no flag, no patched module, and nothing is left behind.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vit_attn.errors import UserError
from vit_attn.model.attention import hard_attention


@dataclass(frozen=True)
class AttentionCall:
    """One fused attention as the network asked for it, over ``M`` queries and ``N`` keys."""

    q: Float[Tensor, "B H M Dh"]
    k: Float[Tensor, "B Hkv N Dh"]
    v: Float[Tensor, "B Hkv N Dv"]
    output: Float[Tensor, "B H M Dv"]
    mask: Float[Tensor, "..."] | Bool[Tensor, "..."] | None
    is_causal: bool
    scale: float
    hard: bool = False
    """Whether all attention goes to the best key."""

    def weights(self) -> Float[Tensor, "B H M N"]:
        """Share of its attention that each query gives each key, in float32 whatever the network ran in."""
        with torch.autocast(self.q.device.type, enabled=False):
            k = self.k.float().repeat_interleave(self.q.shape[1] // self.k.shape[1], dim=1)  # grouped heads
            scores = self.q.float() @ k.mT * self.scale
            if self.is_causal:
                scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
            if self.mask is not None:
                seen = self.mask.dtype == torch.bool
                scores = scores.masked_fill(~self.mask, -torch.inf) if seen else scores + self.mask.float()
            weights = scores.softmax(dim=-1)
            if self.hard:
                return torch.zeros_like(weights).scatter_(-1, weights.argmax(dim=-1, keepdim=True), 1.0)
            return weights


@dataclass(frozen=True)
class Layer:
    """One attention module of the network, over all recorded forwards."""

    name: str
    calls: tuple[AttentionCall, ...]

    def weights(self) -> Float[Tensor, "B H M N"]:
        """Attention weights; forwards are concatenated along ``B``, rows are queries and sum to 1."""
        return torch.cat([call.weights() for call in self.calls])


@dataclass
class Recording:
    """What the attentions of a network were computed from, layer by layer in the order of their calls."""

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str
    pool_include_prefix: bool = False
    forwards: list[list[tuple[str, AttentionCall]]] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of layers, without the pool."""
        return len(self._all()) - self._pools

    def __getitem__(self, index: int) -> Layer:
        """The layer at ``index``; negative indices count from the last."""
        return self._all()[range(len(self))[index]]

    def __iter__(self) -> Iterator[Layer]:
        """First layer first."""
        return (self[i] for i in range(len(self)))

    @property
    def pool(self) -> Layer | None:
        """The attention by which the network pools its tokens, one query an image, if it pools so."""
        return self._all()[-1] if self._pools else None

    @property
    def _pools(self) -> bool:
        return self.global_pool == "map"

    @property
    def num_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    def query_rows(self, queries: Sequence[int] | None = None) -> Float[Tensor, "_ Q N"]:
        """One row per query that selects its token; without queries the one row that the network pools.

        A pool by attention weighs the tokens differently for each image; else the rows are the same for all.

        Raises:
            UserError: If a query is not a token of the network.
        """
        if queries is None:
            return self._pooled_row()
        outside = [query for query in queries if not -self.num_tokens <= query < self.num_tokens]
        if outside or not len(queries):
            raise UserError(f"queries must be tokens in 0..{self.num_tokens - 1}, got {list(queries)}")
        return torch.eye(self.num_tokens, device=self._device())[None, list(queries)]

    def _pooled_row(self) -> Float[Tensor, "_ 1 N"]:
        first = 0 if self.pool_include_prefix else self.num_prefix_tokens
        if self.pool is not None:
            weights = self.pool.weights().mean(dim=1)  # heads averaged: (B, 1, pooled tokens)
            return F.pad(weights, (self.num_tokens - weights.shape[-1], 0))
        row = torch.zeros(1, 1, self.num_tokens, device=self._device())
        if self.global_pool == "token":
            row[..., 0] = 1.0
        elif self.global_pool == "avg":
            row[..., first:] = 1.0 / (self.num_tokens - first)
        else:
            raise UserError(f"no default query for a network that pools by {self.global_pool!r}: name the queries")
        return row

    def _all(self) -> list[Layer]:
        if not self.forwards:
            raise UserError("nothing was recorded: call the network inside `with record(net) as recording:`")
        return [
            Layer(name, tuple(forward[position][1] for forward in self.forwards))
            for position, (name, _) in enumerate(self.forwards[0])
        ]

    def _device(self) -> torch.device:
        return self.forwards[0][0][1].q.device


@contextlib.contextmanager
def record(net: nn.Module) -> Iterator[Recording]:
    """Record the attention of every forward of ``net`` inside the ``with`` block.

    The network may be compiled: inside the block it runs eagerly. Parameters, gradients, hooks, modes and random state
    stay as they are. Recorded tensors are detached.

    Args:
        net: A vision transformer of ours or of timm, anything with ``num_prefix_tokens``, ``global_pool`` and
            ``patch_embed.grid_size`` whose attention modules call ``scaled_dot_product_attention``.

    Yields:
        A recording that grows with each forward.

    Raises:
        UserError: If the network is not a vision transformer, or if a forward was not seen whole: an attention module
            that did not attend, attended twice or not over all tokens, or attention outside of them; they are listed.
    """
    recorder = _Recorder(net)
    pre = register_module_forward_pre_hook(recorder.enter)
    post = register_module_forward_hook(recorder.leave, always_call=True)
    try:
        with torch.compiler.set_stance("force_eager"), recorder:
            yield recorder.recording
    finally:
        pre.remove()
        post.remove()


class _Recorder(TorchFunctionMode):
    """Sees each fused attention, and by global hooks the module that asked for it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.names = _attention_modules(net)
        self.recording = _empty_recording(net)
        self.inside: list[str] = []
        self.calls: list[tuple[str, AttentionCall]] | None = None

    def enter(self, module: nn.Module, _args: Any) -> None:
        if module is self.net:
            self.calls = []
        if module in self.names:
            self.inside.append(self.names[module])

    def leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        if module in self.names and self.inside:
            self.inside.pop()
        if module is self.net and self.calls is not None:
            calls, self.calls = self.calls, None
            if output is not None:  # a forward that raised tells its own error
                self._check(calls)
                self.recording.forwards.append(calls)

    def _check(self, calls: list[tuple[str, AttentionCall]]) -> None:
        seen = [name for name, _ in calls]
        if "" in seen:
            raise UserError(f"{type(self.net).__name__} attends outside its attention modules {self._known()}")
        if missing := [name for name in self.names.values() if name not in seen]:
            raise UserError(
                f"{len(missing)} of {len(self.names)} attention modules of {type(self.net).__name__} were not seen "
                f"calling scaled_dot_product_attention: {', '.join(missing)}"
            )
        if twice := {name for name in seen if seen.count(name) > 1}:
            raise UserError(f"attention modules that attend more than once a forward: {', '.join(sorted(twice))}")
        self._check_tokens(calls)
        if self.recording.forwards and seen != [name for name, _ in self.recording.forwards[0]]:
            raise UserError(f"this forward used other attention modules than the first one: {', '.join(seen)}")

    def _check_tokens(self, calls: list[tuple[str, AttentionCall]]) -> None:
        """Layers attend from all tokens to all; a pool, which comes last, by one query to all that are pooled."""
        recording, batch = self.recording, calls[0][1].q.shape[0]
        pooled = recording.num_tokens - (0 if recording.pool_include_prefix else recording.num_prefix_tokens)
        wanted = [(batch, recording.num_tokens, recording.num_tokens)] * len(calls)
        if recording.global_pool == "map":
            wanted[-1] = (batch, 1, pooled)
        for (name, call), expected in zip(calls, wanted, strict=True):
            found = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
            if found != expected:
                raise UserError(
                    f"attention of {expected[1]} queries to all {expected[2]} tokens was expected of {expected[0]} "
                    f"images, got images, queries and keys {found} in {name}"
                )

    def _known(self) -> str:
        return ", ".join(self.names.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (F.scaled_dot_product_attention, hard_attention) and self.calls is not None:
            name = self.inside[-1] if self.inside else ""
            call = _attention_call(output, *args, **(kwargs or {}))
            self.calls.append((name, replace(call, hard=func is hard_attention)))
        return output


def _attention_call(  # noqa: PLR0913  the arguments of torch's scaled_dot_product_attention
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    if dropout_p:
        raise UserError(f"attention dropout is on (p={dropout_p}), so no map would be what was used: call net.eval()")
    return AttentionCall(
        q=query.detach(),
        k=key.detach(),
        v=value.detach(),
        output=output.detach(),
        mask=None if attn_mask is None else attn_mask.detach(),
        is_causal=is_causal,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
    )


def _attention_modules(net: nn.Module) -> dict[nn.Module, str]:
    """The innermost modules whose class is named after attention, with their names in the network."""

    def is_attention(module: nn.Module) -> bool:
        return any(part in type(module).__name__.lower() for part in ("attention", "attn"))

    found = {module: name for name, module in net.named_modules() if is_attention(module) and module is not net}
    inner = {m: name for m, name in found.items() if not any(c in found for c in m.modules() if c is not m)}
    if parallel := [name for name, module in net.named_modules() if type(module).__name__ == "ParallelThingsBlock"]:
        raise UserError(f"attention in parallel is no chain of layers: {', '.join(parallel)}")
    if not inner:
        raise UserError(f"{type(net).__name__} has no attention modules to record")
    return inner


def _empty_recording(net: Any) -> Recording:
    try:
        rows, cols = net.patch_embed.grid_size
        include_prefix = getattr(net, "pool_include_prefix", False)
        return Recording(net.num_prefix_tokens, (rows, cols), net.global_pool, include_prefix)
    except AttributeError as error:
        raise UserError(f"{type(net).__name__} does not say how its tokens are laid out: {error}") from error
