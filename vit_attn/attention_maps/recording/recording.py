"""What was recorded of a network's attention, from which weights are computed when they are asked for.

Never are the maps of all layers there at once: a layer keeps queries, keys and values, and its weights are computed
from them in float32, a few images and heads at a time where that is enough.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vit_attn.attention_maps.checks import class_targets, first_line, in_head, indices
from vit_attn.attention_maps.precision import exact, in_float32, product, products_are_full
from vit_attn.attention_maps.recording.token_layout import UNKNOWN_POOL, by_attention, pooled_row
from vit_attn.errors import UserError, is_out_of_memory

Target = int | Sequence[int] | Int64[Tensor, " B"] | Callable[[Any], Tensor] | None
"""What gradients are of: a class, one class an image, a function of the network's output to one number an image, or,
by default, the class that the network names."""

WORKSPACE = 2**18
"""Weights that are computed at once where a part will do: 1 MiB in float32, which caches hold."""


@dataclass(frozen=True)
class AttentionCall:
    """One fused attention as the network asked for it, over ``M`` queries and ``N`` keys."""

    q: Float[Tensor, "B H M Dh"]
    k: Float[Tensor, "B H N Dh"]
    v: Float[Tensor, "B H N Dv"]
    mask: Float[Tensor, "B H M N"] | Bool[Tensor, "B H M N"] | None
    """Added to the scores, or where attention may go; broadcast, not copied."""
    scale: float
    hard: bool = False
    """Whether all attention goes to the best key."""
    output: Float[Tensor, "B H M Dv"] | None = None
    """What the network went on with, where gradients are recorded."""
    silent: Bool[Tensor, "B H M 1"] | None = None
    """Queries that give zeros: ablated, or without a key; their weights are zeros too, and do not sum to 1."""

    def weights(self) -> Float[Tensor, "B H M N"]:
        """Share of its attention that each query gives each key, in float32 whatever the network ran in."""
        with exact(), torch.no_grad():
            scores = self._scores()
            if self.mask is not None:
                seen = self.mask.dtype == torch.bool
                scores = scores.masked_fill_(~self.mask, -torch.inf) if seen else scores.add_(self.mask)
            # on a CPU fresh memory costs as much as the softmax
            weights = torch.softmax(scores, dim=-1, out=scores if scores.device.type == "cpu" else None)
            if self.hard:
                weights = torch.zeros_like(weights).scatter_(-1, weights.argmax(dim=-1, keepdim=True), 1.0)
            return weights if self.silent is None else weights.masked_fill_(self.silent, 0.0)

    def _scores(self) -> Tensor:
        q, k = self.q.float().flatten(0, 1), self.k.float().flatten(0, 1)  # of one image, views
        if products_are_full(q.device):
            scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=self.scale)
        else:
            scores = product(q, k.mT).mul_(self.scale)
        return scores.unflatten(0, self.q.shape[:2])

    def part(self, images: slice, heads: slice = slice(None), queries: Sequence[int] | None = None) -> "AttentionCall":
        """The same attention of some images, heads and queries only."""

        def of(x: Tensor | None, asking: bool) -> Any:
            x = None if x is None else x[images, heads]
            return x[:, :, list(queries)] if x is not None and asking and queries is not None else x

        return replace(
            self,
            q=of(self.q, True),
            k=of(self.k, False),
            v=of(self.v, False),
            mask=of(self.mask, True),
            output=of(self.output, True),
            silent=of(self.silent, True),
        )

    def on_host(self) -> "AttentionCall":
        """The same attention in the host's memory, without its output."""

        def of(x: Tensor | None) -> Any:
            if x is None:
                return None
            own = x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]
            return own.cpu().expand(x.shape)

        return replace(
            self, q=of(self.q), k=of(self.k), v=of(self.v), mask=of(self.mask), output=None, silent=of(self.silent)
        )

    def parts(self, by_head: bool = False) -> Iterator[tuple[slice, slice]]:
        """Images and heads, together all, whose weights fit the workspace; one image has all its heads by default."""
        batch, heads, queries, _ = self.q.shape
        of_head = queries * self.k.shape[2]
        images = max(1, WORKSPACE // (of_head * heads))
        each = heads if images > 1 or not by_head else min(heads, max(1, WORKSPACE // of_head))
        for start in range(0, batch, images):
            for head in range(0, heads, each):
                yield slice(start, start + images), slice(head, head + each)


@dataclass(frozen=True)
class Layer:
    """One attention module of the network, over all recorded forwards."""

    name: str
    calls: tuple[AttentionCall, ...]

    @in_float32
    def weights(self) -> Float[Tensor, "B H M N"]:
        """Attention weights; forwards are concatenated along ``B``, rows are queries and sum to 1.

        Raises:
            UserError: If they are not finite.
        """
        return torch.cat([call.weights() for call in self.calls])


@dataclass(frozen=True)
class Forward:
    """One forward of the network."""

    calls: tuple[tuple[str, AttentionCall], ...]
    output: Any = None
    """What the network returned, where gradients are recorded."""


@dataclass
class Recording:
    """What the attentions of a network were computed from, layer by layer in the order of their calls.

    Args:
        num_prefix_tokens: Tokens before the patches: CLS and registers.
        grid_size: Rows and columns of patches.
        global_pool: What the network pools: ``token`` (CLS), ``prefix`` (all prefix tokens, such as CLS and a
            distillation token), ``avg``, ``token+avg`` (CLS beside the mean over the patches), ``tokens`` (as
            ``pooled`` says), ``map`` (by attention from one query), or ``prr token`` and ``prr avg`` (by attention of
            all tokens to all). Measured where the forward had a graph, else what the network's class does.
        pool_include_prefix: Whether the pool reads the prefix tokens too.
        gradients: Whether outputs were kept for gradients.
        forwards: What was recorded.
        patch_size: Height and width of a patch in pixels, the first at the image's upper left; none if unknown.
        pooled: The fraction of each token in what is pooled, where ``global_pool`` does not say it.
    """

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str
    pool_include_prefix: bool = False
    gradients: bool = False
    forwards: list[Forward] = field(default_factory=list)
    patch_size: tuple[int, int] | None = None
    pooled: Float[Tensor, " N"] | None = None

    def __len__(self) -> int:
        """Number of layers, without the pool."""
        return len(self._all()) - self.pools_by_attention

    def __getitem__(self, index: int) -> Layer:
        """The layer at ``index``; negative indices count from the last.

        Raises:
            UserError: If there is none.
        """
        return self._all()[indices("layers", [index], len(self))[0]]

    def __iter__(self) -> Iterator[Layer]:
        """First layer first."""
        return (self[i] for i in range(len(self)))

    @property
    def pool(self) -> Layer | None:
        """The attention by which the network pools its tokens, if it pools so."""
        return self._all()[-1] if self.pools_by_attention else None

    @property
    def pools_by_attention(self) -> bool:
        """Whether the last attention is a pool and no layer."""
        return by_attention(self.global_pool)

    @property
    def num_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def batch_size(self) -> int:
        """Images of all forwards."""
        return sum(forward.calls[0][1].q.shape[0] for forward in self.forwards)

    def check_heads(self) -> None:
        """Refuse layers that do not fit one table of layers and heads.

        Raises:
            UserError: If they have unequally many heads.
        """
        heads = [layer.calls[0].q.shape[1] for layer in self]
        if len(set(heads)) > 1:
            raise UserError(f"layers with unequally many heads have no table of layers and heads, got {heads}")

    def query_rows(self, queries: Sequence[int] | None = None) -> Float[Tensor, "_ Q N"]:
        """One row per query that selects its token; without queries the one row that the network pools.

        A pool by attention weighs the tokens differently for each image; else the rows are the same for all.

        Raises:
            UserError: If a query is not a token of the network.
        """
        if queries is None:
            return self._pooled_row()
        return torch.eye(self.num_tokens, device=self.device, dtype=torch.float32)[None, self.checked(queries)]

    def checked(self, queries: Sequence[int]) -> list[int]:
        """Token indices from 0; negative ones count from the last.

        Raises:
            UserError: If one is not a token of the network.
        """
        self._all()
        if not (chosen := indices("queries", queries, self.num_tokens, "tokens ")):
            raise UserError(f"queries must be tokens in 0..{self.num_tokens - 1}, got none")
        return chosen

    def _pooled_row(self) -> Float[Tensor, "_ 1 N"]:
        if self.pool is not None and self.global_pool != UNKNOWN_POOL:
            return self.pad_pooled(self.pool.weights().mean(dim=1))
        row = pooled_row(self)
        if row is None:
            reads = self.global_pool or "its tokens in a way that its class does not say"
            hint = ", or record the whole classifier with gradients=True, which measures what it reads"
            raise UserError(
                f"no default query for a network that reads {reads}: name the queries{'' if self.gradients else hint}"
            )
        return row.to(self.device)[None, None]

    def pad_pooled(self, rows: Float[Tensor, "B M pooled"]) -> Float[Tensor, "B 1 N"]:
        """What is read of a pool's rows over the tokens that it pools, as a row over all tokens."""
        row = rows[:, :1] if self.global_pool == "prr token" else rows.mean(dim=1, keepdim=True)
        return F.pad(row, (self.num_tokens - row.shape[-1], 0))

    def output_gradients(self, target: Target = None) -> list[list[Tensor]]:
        """Gradients of a target by what each attention gave, (B, H, M, Dv): by layer, the pool last, then by forward.

        The gradient by the weights follows from it, as dO · Vᵀ, without a map in the network.

        Raises:
            UserError: If gradients were not recorded, or if the target is not in the output.
        """
        if not self.gradients:
            raise UserError("gradients were not recorded: use `with record(net, gradients=True) as recording:`")
        self._all()  # or nothing was recorded
        if not (target is None or callable(target)):
            target = class_targets(target, self.batch_size, self.device)
        by_forward, start = [], 0
        for forward in self.forwards:
            outputs: list[Any] = [call.output for _, call in forward.calls]
            stop = start + outputs[0].shape[0]
            with exact(), torch.enable_grad():
                value = target_value(forward.output, target, slice(start, stop)).sum()
                by_forward.append(gradients_of(value, outputs))
            start = stop
        return [list(of_layer) for of_layer in zip(*by_forward, strict=True)]

    def on_host(self) -> "Recording":
        """The same recording in the host's memory, without what gradients need, which holds the network's activations.

        Only queries, keys, values and masks are copied, and of a mask that is broadcast what it is broadcast from.
        """
        forwards = [Forward(tuple((name, call.on_host()) for name, call in each.calls)) for each in self.forwards]
        return replace(self, gradients=False, forwards=forwards)

    def _all(self) -> list[Layer]:
        if not self.forwards:
            raise UserError(
                "nothing was recorded: call the network itself, no copy or replica of it, inside `with record(net) as "
                "recording:`, in the same thread"
            )
        return [
            Layer(name, tuple(forward.calls[position][1] for forward in self.forwards))
            for position, (name, _) in enumerate(self.forwards[0].calls)
        ]

    @property
    def device(self) -> torch.device:
        """Where what was recorded is."""
        self._all()
        return self.forwards[0].calls[0][1].q.device


def logits_of(output: Any) -> Tensor:
    """The logits in what a network returned; Hugging Face's networks name them.

    Raises:
        UserError: If there are none.
    """
    logits = getattr(output, "logits", output[0] if isinstance(output, tuple) else output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise UserError(f"the network returns no logits (B, classes) but {shape}: give the target as a function")
    return logits


def target_value(output: Any, target: Target, images: slice) -> Float[Tensor, " part"]:
    """What gradients are of, of these images out of all that the target may count.

    Raises:
        UserError: If a class is not in the head, or if there is not one class or number for each image.
    """
    if callable(target):
        return _checked_value(target(output), images.stop - images.start, output)
    logits = logits_of(output)
    if target is None:
        classes = logits.argmax(dim=-1)
    else:
        chosen: Any = target[images] if isinstance(target, Tensor) and target.ndim else target
        classes = class_targets(chosen, len(logits), logits.device)
    return logits.gather(-1, in_head(classes, logits.shape[-1])[:, None])[:, 0]


def _checked_value(value: Any, images: int, output: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != (images,) or not value.is_floating_point():
        found = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(
            f"a target function must give one number for each image, a float tensor ({images},), as output[:, 3] is, "
            f"got {found}"
        )
    if any(_is_of_others(value, image, output) for image in {0, images - 1}):
        raise UserError("a target function must give for each image a number of that image alone, as output[:, 3] is")
    return value


def _is_of_others(value: Tensor, image: int, output: Any) -> bool:
    """Whether an image's number is computed from what the network returned for others."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.shape[:1] != value.shape:
        return False
    if not value.requires_grad or not logits.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value[image], logits, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient[:image].any() or gradient[image + 1 :].any())


def gradients_of(value: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a number by what each attention gave: zeros by that of layers that it does not depend on."""
    try:
        found = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            "the target has no gradient by what the attentions gave: compute it from the network's output, before "
            f"backward() or a step of training changes the network ({first_line(error)})"
        ) from error
    if all(each is None for each in found):
        raise UserError("the target has no gradient by what the attentions gave: it does not depend on any of them")
    return [torch.zeros_like(of) if each is None else each for each, of in zip(found, outputs, strict=True)]
