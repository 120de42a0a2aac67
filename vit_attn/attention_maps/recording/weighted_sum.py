"""Product of attention weights and values, as a network writes it: ``@``, ``matmul``, ``bmm`` or ``einsum``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PRODUCTS = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm, torch.einsum}
)


@dataclass(frozen=True)
class WeightedSum:
    """Product of weights and values, and the order of its axes."""

    values: Tensor
    """Values (…, N, Dv), with as many axes as the weights or fewer."""
    lead: Sequence[int]
    """Sizes of the weights' axes before rows and columns."""
    order: Sequence[int]
    """Axes of the output in the order (…, M, Dv)."""

    def rows_last(self, output: Tensor) -> Tensor:
        """Bring the output into the order (…, M, Dv)."""
        return output.permute(*self.order)

    def as_asked(self, output: Tensor) -> Tensor:
        """Bring it back into the order that the network asked for."""
        return output.permute(*(self.order.index(axis) for axis in range(len(self.order))))


def weighted_sum(
    func: Callable[..., Any], args: Sequence[Any], operands: Sequence[Any], forms: Sequence[bool | None]
) -> WeightedSum | None:
    """Read a product of weights and values; None if it is none.

    Args:
        func: The function.
        args: Its arguments.
        operands: The tensors among them, two for a product.
        forms: For each operand False if it is the weights, True if it is the weights transposed, else None.
    """
    if func not in PRODUCTS or len(operands) != 2 or None not in forms:
        return None
    if func is torch.einsum:
        found = _of_einsum(args[0], operands, forms)
    else:
        if func is Tensor.__rmatmul__:
            operands, forms = operands[::-1], forms[::-1]
        found = _of_matmul(operands, forms)
    if found is None or found.values.ndim - 2 > len(found.lead):
        return None
    sizes = found.values.shape[:-2]
    fits = all(
        size in (1, wanted) for size, wanted in zip(sizes, found.lead[len(found.lead) - len(sizes) :], strict=True)
    )
    return found if fits else None


def _of_matmul(operands: Sequence[Any], forms: Sequence[bool | None]) -> WeightedSum | None:
    is_first = forms[0] is not None
    weights, values = operands if is_first else operands[::-1]
    if forms[0 if is_first else 1] is is_first or not isinstance(values, Tensor) or values.ndim < 2:
        return None  # weights come first as they are, or second and transposed
    axes = list(range(weights.ndim))
    if is_first:
        return WeightedSum(values, weights.shape[:-2], axes)
    return WeightedSum(values.mT, weights.shape[:-2], [*axes[:-2], axes[-1], axes[-2]])


def _of_einsum(equation: Any, operands: Sequence[Any], forms: Sequence[bool | None]) -> WeightedSum | None:
    """Read an equation such as ``b h i j, b h j d -> b h i d``, in any order of its letters."""
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, result = equation.replace(" ", "").split("->")
    position = 0 if forms[0] is not None else 1
    names, others = inputs.split(",")[position], inputs.split(",")[1 - position]
    lead, row, key = (names[:-2], names[-1], names[-2]) if forms[position] else (names[:-2], names[-2], names[-1])
    channels = set(others) - {*lead, row, key}
    if any(len(set(each)) < len(each) for each in (names, others, result)) or len(channels) != 1:
        return None
    (channel,) = channels
    if row in others or key not in others or set(result) != {*lead, row, channel}:
        return None
    values = operands[1 - position].permute([others.index(each) for each in (*lead, key, channel) if each in others])
    for axis, each in enumerate(lead):
        values = values if each in others else values.unsqueeze(axis)
    return WeightedSum(values, operands[position].shape[:-2], [result.index(each) for each in (*lead, row, channel)])
