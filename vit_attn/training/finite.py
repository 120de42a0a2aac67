"""Updates that are not finite are undone on the device, without the host waiting for it."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

SETTLED = 6
"""Times that an optimiser's tensors must have been the same until that is taken for granted."""
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class UpdateGate:
    """Undoes an optimiser's step if the norm of its gradients, or that of the weights after it, is not finite.

    Weights, and what the optimiser keeps of them on their device, are copied before a step and put back where it was
    bad. Both are taken as integers of their bits, so that choosing is a multiplication by 0 or 1 that no NaN survives,
    in a handful of ``foreach`` operations. It needs memory for one more copy of both.

    Args:
        device: Where the network is.
        sticky: Whether all that follows the first bad step is undone, too, so that the weights stay those before it.
        buffers: What a forward pass changes beside the weights, such as running means; undone as well.
        blind: Whether the host must not look at the verdict, since it would wait for the device; by default unless that
            is the CPU.
    """

    def __init__(
        self, device: torch.device, sticky: bool, buffers: Iterable[Tensor] = (), blind: bool | None = None
    ) -> None:
        self.sticky, self.blind = sticky, device.type != "cpu" if blind is None else blind
        self.record = torch.tensor([0, -1, 0], dtype=torch.int64, device=device)
        """Bad steps so far, the number of the first, or -1, and how many of them were the last; on the device."""
        self._buffers = [each.view(BITS[each.element_size()]) for each in buffers if each.is_floating_point()]
        self._kept = [each.clone() for each in self._buffers]
        self._norm: Tensor | None = None
        self._live, self._before = _Bits({}), {}
        self._copied: _Bits | None = None
        self._copies: list[tuple[list[Tensor], ...]] = []
        self._same, self._size = 0, (0, 0)

    def before_step(self, optimizer: Optimizer, norm: Float[Tensor, ""]) -> None:
        """Keep what the step will change.

        Args:
            optimizer: What will step.
            norm: Of all its gradients, over all ranks.
        """
        self._refresh(optimizer)
        if self._copied is not self._live:
            self._copied = self._live
            self._before = {key: torch.empty_like(each) for key, each in self._live.views.items()}
            self._copies = list(_by_kind(self._before.values(), self._live.views.values()))
        for old, new in self._copies:
            torch._foreach_copy_(old, new)
        self._norm = norm

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer, step: int) -> None:
        """Undo the step where it was bad.

        Args:
            optimizer: What has stepped.
            step: Number of the step.
        """
        if self._norm is None:
            return
        bad = self._verdict(self._norm, optimizer)
        self._norm = None
        if self.blind or bad.numpy():
            self._undo(optimizer, bad, step)
        elif self.record.numpy()[2]:
            self.record[2] = 0
        for kept, now in _by_kind(self._kept, self._buffers):
            torch._foreach_copy_(kept, now)

    def _undo(self, optimizer: Optimizer, bad: Tensor, step: int) -> None:
        """Put everything back where ``bad`` is true, and count it."""
        first = torch.where((self.record[1] < 0) & bad, step, self.record[1])
        self.record.copy_(torch.stack([self.record[0] + bad, first, (self.record[2] + 1) * bad]))
        self._refresh(optimizer)
        known = [self._live.views[key] for key in self._before]
        made = [each for key, each in self._live.views.items() if key not in self._before]  # by a first step, from 0
        before = [*self._before.values(), *self._kept]
        for (old,) in _by_kind(before):
            torch._foreach_mul_(old, bad.to(old[0].dtype))
        for (new,) in _by_kind([*known, *self._buffers, *made]):
            torch._foreach_mul_(new, (~bad).to(new[0].dtype))
        for old, new in _by_kind(before, [*known, *self._buffers]):
            torch._foreach_add_(new, old)

    def _verdict(self, norm: Tensor, optimizer: Optimizer) -> Tensor:
        trained = [each for each in _weights(optimizer) if each.numel()]
        weights = torch.stack(torch._foreach_norm(trained)).sum()
        bad = ~(norm.to(weights.device) + weights).isfinite()
        if self.sticky:
            bad = bad | (self.record[0] > 0)
        if any(hasattr(each, "to_local") for group in optimizer.param_groups for each in group["params"]):
            asked = bad.long()  # each rank has seen its own part
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            bad = asked > 0
        return bad

    def _refresh(self, optimizer: Optimizer) -> None:
        """Find what the optimiser works on; views are made anew only where it is not what it was.

        An optimiser that has kept its tensors for some steps is only asked how many it has.
        """
        parameters = (each for group in optimizer.param_groups for each in group["params"])
        size = sum(map(len, optimizer.state.values())), sum(each.grad is not None for each in parameters)
        if self._same >= SETTLED and size == self._size:
            return
        found, self._size = dict(_state(optimizer, self.record.device)), size
        self._same = self._same + 1 if self._live.is_of(found) else 0
        if not self._same:
            self._live = _Bits(found)


class _Bits:
    """Tensors as integers of their bits, by name."""

    def __init__(self, tensors: dict[Any, Tensor]) -> None:
        self.tensors = tensors
        self.views = {key: each.detach().view(BITS[each.element_size()]) for key, each in tensors.items()}

    def is_of(self, tensors: dict[Any, Tensor]) -> bool:
        return self.tensors.keys() == tensors.keys() and all(self.tensors[key] is tensors[key] for key in tensors)


def gradient_norm(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The norm of all gradients; of sharded ones, over all shards."""
    norm: Any = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [_local(each) for group in optimizer.param_groups for each in group["params"] if each.grad is not None]


def _state(optimizer: Optimizer, device: torch.device) -> Iterable[tuple[tuple[int, str], Tensor]]:
    """Each weight that has a gradient, and what the optimiser keeps of it on its device."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, parameter in enumerate(parameters):
        if parameter.grad is None:
            continue
        yield (number, ""), _local(parameter)
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.device == device:
                yield (number, name), _local(value)


def _local(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _by_kind(*lists: Iterable[Tensor]) -> Iterable[tuple[list[Tensor], ...]]:
    """The lists, which match in types, in parts of one type each."""
    whole = [list(each) for each in lists]
    for kind in dict.fromkeys(each.dtype for each in whole[0]):
        chosen = [i for i, each in enumerate(whole[0]) if each.dtype == kind]
        yield tuple([one[i] for i in chosen] for one in whole)
