"""Attention that a network writes out: a softmax of scores, and the product of its result with the values.

Fused attention is one call. Here the tensor that the softmax gives is followed to the product, by identity: through
dropout in evaluation, casts, copies and reshaping. So what is multiplied with the values is what the softmax gave, or
the attention is refused, since no map would be what was used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_attn.attention_maps.recording.head_axes import HeadAxes
from vit_attn.attention_maps.recording.sdpa_call import SDPACall, dropout_message
from vit_attn.attention_maps.recording.weighted_sum import WeightedSum, weighted_sum
from vit_attn.errors import UserError

SOFTMAXES = frozenset({torch.softmax, torch.special.softmax, Tensor.softmax, F.softmax})
DROPOUTS = frozenset({torch.dropout, F.dropout})
RESHAPING = frozenset({Tensor.view, Tensor.reshape, torch.reshape, Tensor.unflatten, torch.unflatten})
UNCHANGING = frozenset(
    {
        *(Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16),
        *(Tensor.contiguous, Tensor.clone, torch.clone, *DROPOUTS, *RESHAPING, Tensor.flatten, torch.flatten),
        *(Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze),
    }
)
"""Functions that change no weight, as long as rows and columns stay the last two axes."""
READING = frozenset({Tensor.detach, torch.detach, Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.retain_grad})
"""Functions that only read the weights, as those that return them do."""
EXCHANGING = frozenset({Tensor.transpose, torch.transpose, Tensor.swapaxes})
TRANSPOSED: Any = Tensor.mT
IN_PLACE = frozenset({"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__setitem__"})


class SoftmaxCall(SDPACall):
    """Attention call whose weights the network computes itself; queries and keys are zeros that only tell the shape.

    Args:
        scores: The input of the softmax.
        axes: Where its heads are.
    """

    def __init__(self, scores: Tensor, axes: HeadAxes) -> None:
        self.axes, (batch, heads, queries, keys) = axes, axes.split(scores).shape
        self.shape = (batch, heads, queries, keys)
        zero = torch.zeros((), dtype=scores.dtype, device=scores.device)
        q, k = (zero.expand(batch, heads, tokens, 1) for tokens in (queries, keys))
        super().__init__(q, k, k, None, 1.0, False)
        self.sources = scores, None

    def softmax(self, scores: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the weights, 0 on removed edges and for zeroed queries, in the form of the scores."""
        if self.removed_edges is not None:
            by_head, removed = self.axes.split(scores), self.removed_edges.expand(self.shape)
            closed = by_head <= torch.finfo(by_head.dtype).min / 2  # libraries close by the least number, or by -inf
            empty = (removed | closed).all(dim=-1, keepdim=True)
            scores = self.axes.join(torch.where(empty, 0.0, by_head.masked_fill(removed, -torch.inf)))
            self.zero_out(empty)
        weights = compute(scores)
        if self.zero_rows is not None:
            weights = self.axes.join(self.axes.split(weights).masked_fill(self.zero_rows, 0.0))
        self.given = self.axes.split(weights)
        return weights

    @property
    def is_cut(self) -> bool:
        """True if an edge or a head is removed."""
        return self.removed_edges is not None or self.zero_rows is not None

    def attend(
        self, product: WeightedSum, output: Tensor, attended: Callable[["SoftmaxCall", Tensor], Tensor]
    ) -> Tensor:
        """Pass the values and the output (B, H, M, Dv) on, and return the one that the network goes on with.

        Args:
            product: The product of the weights and the values.
            output: Its result.
            attended: Called with this call and the output; returns another, or the same.
        """
        lead = self.axes.before  # the weights may have got other axes in between, in the same order
        values = product.values.expand(*product.lead, *product.values.shape[-2:])
        self.v = self.axes.split(values.reshape(*lead, *values.shape[-2:]))
        self.sources = self.sources[0], product.values
        rows = product.rows_last(output)
        mixed = attended(self, self.axes.split(rows.reshape(*lead, *rows.shape[-2:])))
        return product.as_asked(self.axes.join(mixed).reshape(rows.shape))


@dataclass
class FollowedSoftmax:
    """Weights of one softmax, from there to the end of the module that computes them.

    Args:
        call: The attention call.
        where: The calling module, for messages, such as `` in blocks.0.attn``.
        attended: Called with the call and its output (B, H, M, Dv), once the values are known; returns the output that
            the network goes on with.
        forms: The weights as they are passed on, each with whether rows and columns are exchanged.
        is_guessed: Whether images and heads share an axis in an order that is only seen after the product.
        is_ambiguous: Whether images and heads have axes of their own, whose order cannot be told by their sizes.
        may_be_unused: Whether the module attends otherwise, so that this softmax may be of something else.
    """

    call: SoftmaxCall
    where: str
    attended: Callable[[SoftmaxCall, Tensor], Tensor]
    forms: list[tuple[Tensor, bool]]
    is_guessed: bool = False
    is_ambiguous: bool = False
    may_be_unused: bool = False
    change: str = ""
    """The function that the weights were given to last, if it is none of those that are followed."""
    is_multiplied: bool = False
    is_changed: bool = False
    """Whether an operation gave other weights of the same shape, multiplied or not."""
    merged: list[Tensor] = field(default_factory=list)
    """The output, as long as it is not known how images and heads share its first axis."""

    def call_function(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function of the module, and follow the weights if they are among its arguments."""
        operands = [*args, *kwargs.values()][func is torch.einsum :]
        operands = [part for each in operands for part in (each if isinstance(each, (list, tuple)) else [each])]
        forms = [self._form(each) for each in operands]
        if self.merged and operands and operands[0] is self.merged[-1]:
            return self._split_heads(func, args, kwargs)
        if not operands or all(form is None for form in forms):
            return func(*args, **kwargs)
        if func in DROPOUTS:
            self._check_dropout(args, kwargs)
        if product := weighted_sum(func, args, operands, forms):
            if self.is_multiplied:
                raise UserError(f"attention{self.where} multiplies its weights twice, so neither product is all of it")
            self.is_multiplied = True
            self._check_unchanged(next(each for each in operands if self._form(each) is not None))
            output = self.call.attend(product, func(*args, **kwargs), self.attended)
            self.merged = self._unknown_order(product, output)
            return output
        name = getattr(func, "__name__", "")
        if self._form(kwargs.get("out", operands[0])) is not None and _writes_in_place(name, kwargs):
            raise UserError(self.changed_message(name))
        result = func(*args, **kwargs)
        self._follow(func, args, kwargs, result)
        return result

    def check_used(self) -> str:
        """Compose the error about weights that were not multiplied with values as they are; "" if they were."""
        if self.is_multiplied and self.is_changed:
            return self.changed_message(self.change)
        if self.merged:
            return (
                f"attention{self.where} has one axis for images and heads, or windows, in an order that is not seen: "
                "split it as (images, heads), or record one image at a time"
            )
        return "" if self.is_multiplied or self.may_be_unused else self.changed_message(self.change)

    def changed_message(self, how: str) -> str:
        """Compose the error about weights that are changed."""
        by = f" (by {how})" if how else ""
        return (
            f"attention{self.where} changes its weights between the softmax and the product with the values{by}, as "
            "talking heads do, so no map of one head is what was used: record a network that does not"
        )

    def _unknown_order(self, product: WeightedSum, output: Tensor) -> list[Tensor]:
        """Return the output as long as the order of images and heads in it is not known."""
        if self.is_guessed:
            return [output] if len(product.lead) == 1 else []
        images, heads = self.call.shape[:2]
        if not self.is_ambiguous or images != heads or images == 1 or len(product.lead) != 2:
            return []
        if list(product.order) == sorted(product.order):
            return [output, output]  # as after its split: the next permutation tells
        return [] if product.order[0] == 0 else [output]

    def _check_unchanged(self, multiplied: Tensor) -> None:
        """Refuse weights that were written into since the softmax, as through a view of a copy.

        Raises:
            UserError: If they were.
        """
        given: Any = self.call.given
        expected = self.call.axes.join(given).flatten()
        found = (multiplied.mT if self._form(multiplied) else multiplied).flatten()
        if found.numel() != expected.numel():
            return  # broadcast
        tolerance = 2 * max(torch.finfo(each.dtype).eps for each in (found, expected))
        if not torch.allclose(found.float(), expected.float(), rtol=tolerance, atol=1e-6):
            raise UserError(self.changed_message("writing into them"))

    def _form(self, argument: Any) -> bool | None:
        """Tell whether an argument is the weights (False) or the weights transposed (True); None if it is neither."""
        return next((transposed for tensor, transposed in self.forms if tensor is argument), None)

    def _follow(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """Keep the result if it is the weights in another form."""
        if not isinstance(result, Tensor):
            return
        form = self._form(args[0]) if args else None
        exchanged = func == TRANSPOSED.__get__ or (func in EXCHANGING and _exchanged(args, kwargs) == [-2, -1])
        if form is not None and (exchanged or func in UNCHANGING):
            form = form is not exchanged
            if result.shape[-2:] == (self.call.shape[:1:-1] if form else self.call.shape[2:]):
                self.forms.append((result, form))
                return
        self.change = getattr(func, "__name__", "")
        same_shape = result.numel() == self.forms[0][0].numel() and result.shape[-2:] == self.call.shape[2:]
        self.is_changed |= same_shape and func not in READING

    def _split_heads(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Follow the output to where its first axis is split: images come first, or the order stays unknown."""
        result, images_and_heads = func(*args, **kwargs), self.call.shape[:2]
        if func in RESHAPING and len(self.merged) == 1 and result.shape[:2] == images_and_heads:
            self.merged.append(result)
            if images_and_heads[0] != images_and_heads[1]:
                self.merged = []
        elif len(self.merged) == 2:
            is_permuted = func in (Tensor.permute, torch.permute) and _first(args[1:], kwargs) == 0
            if is_permuted or (func in EXCHANGING and -args[0].ndim not in _exchanged(args, kwargs)):
                self.merged = []
        return result

    def _check_dropout(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        if p and (args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))):
            raise UserError(dropout_message(p, self.where))


def is_softmax_of_rows(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a function is a softmax over the last axis of three or more, as that of scores is."""
    if func not in SOFTMAXES:
        return False
    scores, dim = softmax_input(args, kwargs), args[1] if len(args) > 1 else kwargs.get("dim")
    return isinstance(scores, Tensor) and scores.ndim >= 3 and dim in (-1, scores.ndim - 1)


def softmax_input(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Get the first argument of a softmax."""
    return args[0] if args else kwargs.get("input")


def _writes_in_place(name: str, kwargs: dict[str, Any]) -> bool:
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None


def _exchanged(args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
    """Axes that a transposition exchanges, counted from the last."""
    axes = [*args[1:], *(kwargs[name] for name in kwargs if name != "input")]
    return sorted(axis - args[0].ndim if axis >= 0 else axis for axis in axes)


def _first(axes: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """First of the axes of a permutation."""
    listed = axes[0] if axes and isinstance(axes[0], (list, tuple)) else axes or kwargs.get("dims", [None])
    return listed[0]
