"""Recording of a network's attention: the inputs of each call, from which weights are computed on request.

The maps of all layers are never in memory at once: a layer keeps queries, keys and values, and its weights are computed
from them in float32, a few images and heads at a time where that is enough.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.checks import class_targets, indices
from vit_attn.attention_maps.precision import exact, in_float32
from vit_attn.attention_maps.recording.attention_call import AttentionCall
from vit_attn.attention_maps.recording.layout import FIRST_QUERY, UNKNOWN_POOL, is_attention_pool
from vit_attn.attention_maps.recording.targets import Target, gradients_of, target_value
from vit_attn.attention_maps.recording.token_layout import pooling_row
from vit_attn.errors import UserError


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
    """Attention calls in order, each with the name of its module."""
    output: Any = None
    """The network's output, if gradients are recorded."""


@dataclass
class Recording:
    """Recorded attention of a network, layer by layer in the order of the calls.

    Args:
        num_prefix_tokens: Number of tokens before the patches: CLS and registers.
        grid_size: Rows and columns of patches.
        global_pool: Pooling of the network: ``token`` (CLS), ``prefix`` (all prefix tokens, such as CLS and a
            distillation token), ``avg``, ``token+avg`` (CLS and the mean over the patches), ``tokens`` (as
            ``pooled`` says), ``map`` (by attention from one query), ``map token`` (from several, of which the head
            reads the first), or ``prr token`` and ``prr avg`` (by attention of all tokens to all). Measured if the
            forward had a graph, else read from the network's class.
        pool_include_prefix: Whether prefix tokens are pooled, too.
        gradients: Whether outputs were kept for gradients.
        forwards: The recorded forwards.
        patch_size: Height and width of a patch in pixels, the first at the image's upper left; none if unknown.
        pooled: Fraction of each token in the pooled features, where ``global_pool`` does not determine it.
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
        return len(self._layers()) - self.pools_by_attention

    def __getitem__(self, index: int) -> Layer:
        """Get the layer at ``index``; negative indices count from the last.

        Raises:
            UserError: If it does not exist.
        """
        return self._layers()[indices("layers", [index], len(self))[0]]

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the layers, first to last."""
        layers = self._layers()
        return iter(layers[: len(layers) - self.pools_by_attention])

    @property
    def pool(self) -> Layer | None:
        """The attention pool, if the network has one."""
        return self._layers()[-1] if self.pools_by_attention else None

    @property
    def pools_by_attention(self) -> bool:
        """True if the last attention is a pool and not a layer."""
        return is_attention_pool(self.global_pool)

    @property
    def num_tokens(self) -> int:
        """Number of prefix tokens and patches."""
        return self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]

    @property
    def batch_size(self) -> int:
        """Number of images of all forwards."""
        return sum(forward.calls[0][1].q.shape[0] for forward in self.forwards)

    @property
    def device(self) -> torch.device:
        """Device of the recorded tensors."""
        self._layers()
        return self.forwards[0].calls[0][1].q.device

    def check_heads(self) -> None:
        """Refuse layers that do not fit one table of layers and heads.

        Raises:
            UserError: If their numbers of heads differ.
        """
        heads = [layer.calls[0].q.shape[1] for layer in self]
        if len(set(heads)) > 1:
            raise UserError(f"layers with unequally many heads have no table of layers and heads, got {heads}")

    def query_rows(self, queries: Sequence[int] | None = None) -> Float[Tensor, "_ Q N"]:
        """One-hot row for each query; without queries, the single row of token fractions that the network pools.

        An attention pool weights the tokens differently for each image; otherwise the rows are the same for all.

        Raises:
            UserError: If a query is not a token of the network.
        """
        if queries is None:
            return self._pooled_row()
        return torch.eye(self.num_tokens, device=self.device, dtype=torch.float32)[None, self.token_indices(queries)]

    def token_indices(self, queries: Sequence[int]) -> list[int]:
        """Check token indices and count them from 0; negative ones count from the last.

        Raises:
            UserError: If one is not a token of the network.
        """
        self._layers()
        if not (chosen := indices("queries", queries, self.num_tokens, "tokens ")):
            raise UserError(f"queries must be tokens in 0..{self.num_tokens - 1}, got none")
        return chosen

    def _pooled_row(self) -> Float[Tensor, "_ 1 N"]:
        if self.pool is not None and self.global_pool != UNKNOWN_POOL:
            return self.pad_pooled(self.pool.weights().mean(dim=1))
        row = pooling_row(self)
        if row is None:
            reads = self.global_pool or "its tokens in a way that its class does not say"
            hint = ", or record the whole classifier with gradients=True, which measures what it reads"
            raise UserError(
                f"no default query for a network that reads {reads}: name the queries{'' if self.gradients else hint}"
            )
        return row.to(self.device)[None, None]

    def pad_pooled(self, rows: Float[Tensor, "B M pooled"]) -> Float[Tensor, "B 1 N"]:
        """Turn a pool's rows over the tokens that it pools into the one row over all tokens that the head reads."""
        row = rows[:, :1] if self.global_pool in FIRST_QUERY else rows.mean(dim=1, keepdim=True)
        return F.pad(row, (self.num_tokens - row.shape[-1], 0))

    def output_gradients(self, target: Target = None) -> list[list[Tensor]]:
        """Gradients of a target with respect to each attention output, (B, H, M, Dv): by layer, then by forward.

        The pool comes last. The gradient with respect to the weights follows as dO · Vᵀ, without a map in the network.

        Raises:
            UserError: If gradients were not recorded, or if the target is not in the output.
        """
        if not self.gradients:
            raise UserError("gradients were not recorded: use `with record(net, gradients=True) as recording:`")
        self._layers()  # or nothing was recorded
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
        """Copy the recording to the host's memory, without the graph, which holds the network's activations.

        Only queries, keys, values and masks are copied; a broadcast mask is copied before broadcasting.
        """
        forwards = [Forward(tuple((name, call.on_host()) for name, call in each.calls)) for each in self.forwards]
        return replace(self, gradients=False, forwards=forwards)

    def _layers(self) -> list[Layer]:
        """All attention modules, the pool included."""
        if not self.forwards:
            raise UserError(
                "nothing was recorded: call the network itself, no copy or replica of it, inside `with record(net) as "
                "recording:`, in the same thread"
            )
        return [
            Layer(name, tuple(forward.calls[position][1] for forward in self.forwards))
            for position, (name, _) in enumerate(self.forwards[0].calls)
        ]
