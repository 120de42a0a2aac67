"""Agreement of ranks on numbers at each step, without waiting for their devices."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


class Consensus:
    """Element-wise maximum over all ranks, which all ranks know at the same step.

    The numbers of one call are the result of the next, so that the exchange runs during the step. It uses the hosts'
    network (gloo) and no device. All ranks must make the same number of calls.

    Args:
        count: Number of numbers.
        world_size: Number of ranks; with one, the result is immediate.
    """

    def __init__(self, count: int, world_size: int = 1) -> None:
        self.count = count
        self._group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def exchange(self, values: Sequence[int]) -> tuple[int, ...]:
        """Send this rank's numbers, and return the maximum of the previous call; with one rank, the numbers."""
        if self._group is None:
            return tuple(values)
        previous = self._finish()
        numbers = torch.tensor(values, dtype=torch.int64)
        work = dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = work, numbers
        return previous

    def settle(self, values: Sequence[int]) -> tuple[int, ...]:
        """Send this rank's numbers, and wait for the maximum over this call and the previous one."""
        before, now = self.exchange(values), self._finish() if self._group is not None else tuple(values)
        return tuple(map(max, before, now))

    def _finish(self) -> tuple[int, ...]:
        if self._pending is None:
            return (0,) * self.count
        work, numbers = self._pending
        work.wait()
        self._pending = None
        return tuple(numbers.tolist())
