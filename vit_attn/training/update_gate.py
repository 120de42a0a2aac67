"""Gate that undoes non-finite updates on the device, so that the host need not wait for it."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

STABLE_STEPS = 6
"""Steps without a change of the optimiser's tensors after which they are taken to stay the same."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer types by size in bytes."""


class UpdateGate:
    """Undoes an optimiser's step if the norm of its gradients, or of the weights after it, is not finite.

    Weights, and the optimiser's state on their device, are copied before a step and restored if it was bad. Both are
    viewed as integers of the same bits, so that the choice is a multiplication by 0 or 1 that no NaN survives, in a
    handful of ``foreach`` operations. The copy needs as much memory as both.

    Args:
        device: Device of the network.
        sticky: Whether all steps after the first bad one are undone, too, so that the weights stay those before it.
        buffers: Buffers that a forward pass changes, such as running means; restored as well.
        avoid_sync: Whether the host must not read whether the step was bad, since it would wait for the device; by
            default unless that is the CPU.
    """

    def __init__(
        self, device: torch.device, sticky: bool, buffers: Iterable[Tensor] = (), avoid_sync: bool | None = None
    ) -> None:
        self.sticky, self.avoid_sync = sticky, device.type != "cpu" if avoid_sync is None else avoid_sync
        self.counts = torch.tensor([0, -1, 0], dtype=torch.int64, device=device)
        """Number of bad steps, number of the first or -1, and how many of the last steps were bad; on the device."""
        self._buffers = [each.view(INTEGERS[each.element_size()]) for each in buffers if each.is_floating_point()]
        self._saved_buffers = [each.clone() for each in self._buffers]
        self._norm: Tensor | None = None
        self._current, self._saved = _BitViews({}), {}
        self._saved_of: _BitViews | None = None
        self._copies: list[tuple[list[Tensor], ...]] = []
        self._unchanged_steps, self._size = 0, (0, 0)

    def before_step(self, optimizer: Optimizer, norm: Float[Tensor, ""]) -> None:
        """Save the tensors that the step will change.

        Args:
            optimizer: The optimiser that is about to step.
            norm: Norm of all its gradients, over all ranks.
        """
        self._refresh(optimizer)
        if self._saved_of is not self._current:
            self._saved_of = self._current
            self._saved = {key: torch.empty_like(each) for key, each in self._current.views.items()}
            self._copies = list(_by_dtype(self._saved.values(), self._current.views.values()))
        for old, new in self._copies:
            torch._foreach_copy_(old, new)
        self._norm = norm

    def find_tensors_again(self) -> None:
        """Look for the optimiser's tensors at the next step, since some were replaced by others."""
        self._unchanged_steps = 0

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer, step: int) -> None:
        """Undo the step if it was bad.

        Args:
            optimizer: The optimiser that has stepped.
            step: Number of the step.
        """
        if self._norm is None:
            return
        bad = self._is_bad(self._norm, optimizer)
        self._norm = None
        if self.avoid_sync or bad.numpy():
            self._undo(optimizer, bad, step)
        elif self.counts.numpy()[2]:
            self.counts[2] = 0
        for saved, now in _by_dtype(self._saved_buffers, self._buffers):
            torch._foreach_copy_(saved, now)

    def _undo(self, optimizer: Optimizer, bad: Tensor, step: int) -> None:
        """Restore everything where ``bad`` is true, and count the step."""
        first = torch.where((self.counts[1] < 0) & bad, step, self.counts[1])
        self.counts.copy_(torch.stack([self.counts[0] + bad, first, (self.counts[2] + 1) * bad]))
        self._refresh(optimizer)
        views = self._current.views
        known = [views[key] for key in self._saved]
        created = [each for key, each in views.items() if key not in self._saved]  # by a first step, from 0
        before = [*self._saved.values(), *self._saved_buffers]
        for (old,) in _by_dtype(before):
            torch._foreach_mul_(old, bad.to(old[0].dtype))
        for (new,) in _by_dtype([*known, *self._buffers, *created]):
            torch._foreach_mul_(new, (~bad).to(new[0].dtype))
        for old, new in _by_dtype(before, [*known, *self._buffers]):
            torch._foreach_add_(new, old)

    def _is_bad(self, norm: Tensor, optimizer: Optimizer) -> Tensor:
        """Tell, on the device, whether the step is to be undone."""
        trained = [each for each in _trained_weights(optimizer) if each.numel()]
        weights = torch.stack(torch._foreach_norm(trained)).sum()
        bad = ~(norm.to(weights.device) + weights).isfinite()
        if self.sticky:
            bad = bad | (self.counts[0] > 0)
        if any(hasattr(each, "to_local") for group in optimizer.param_groups for each in group["params"]):
            anywhere = bad.long()  # each rank has seen its own shards
            torch.distributed.all_reduce(anywhere, torch.distributed.ReduceOp.MAX)
            bad = anywhere > 0
        return bad

    def _refresh(self, optimizer: Optimizer) -> None:
        """Find the tensors that the optimiser changes; views are made again only if these are others than before.

        Once they have stayed the same for some steps, only their number is compared.
        """
        parameters = (each for group in optimizer.param_groups for each in group["params"])
        size = sum(map(len, optimizer.state.values())), sum(each.grad is not None for each in parameters)
        if self._unchanged_steps >= STABLE_STEPS and size == self._size:
            return
        found, self._size = dict(_changed_tensors(optimizer, self.counts.device)), size
        self._unchanged_steps = self._unchanged_steps + 1 if self._current.is_of(found) else 0
        if not self._unchanged_steps:
            self._current = _BitViews(found)


class _BitViews:
    """Tensors viewed as integers of the same bits, by name."""

    def __init__(self, tensors: dict[Any, Tensor]) -> None:
        self.tensors = tensors
        self.views = {key: each.detach().view(INTEGERS[each.element_size()]) for key, each in tensors.items()}

    def is_of(self, tensors: dict[Any, Tensor]) -> bool:
        """Tell whether these are the same tensor objects."""
        return self.tensors.keys() == tensors.keys() and all(self.tensors[key] is tensors[key] for key in tensors)


def gradient_norm(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Norm of all gradients; of sharded ones, over all shards."""
    norm: Any = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _trained_weights(optimizer: Optimizer) -> list[Tensor]:
    return [_local(each) for group in optimizer.param_groups for each in group["params"] if each.grad is not None]


def _changed_tensors(optimizer: Optimizer, device: torch.device) -> Iterable[tuple[tuple[int, str], Tensor]]:
    """Iterate over each weight that has a gradient, and over the optimiser's state of it on the device."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, parameter in enumerate(parameters):
        if parameter.grad is None:
            continue
        yield (number, ""), _local(parameter)
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.device == device:
                yield (number, name), _local(value)


def _local(tensor: Any) -> Tensor:
    """This rank's shard of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _by_dtype(*lists: Iterable[Tensor]) -> Iterable[tuple[list[Tensor], ...]]:
    """Split parallel lists of tensors, whose dtypes match, by dtype."""
    complete = [list(each) for each in lists]
    for dtype in dict.fromkeys(each.dtype for each in complete[0]):
        chosen = [i for i, each in enumerate(complete[0]) if each.dtype == dtype]
        yield tuple([one[i] for i in chosen] for one in complete)
