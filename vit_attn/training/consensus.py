"""What ranks agree on at each step without waiting for their devices."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


class Consensus:
    """The largest of what each rank asks for, by number, known to all ranks at the same step.

    What is asked at one call is the answer of the next, so that the exchange runs while the step does. It goes over the
    network of the hosts (gloo) and never touches a device. All ranks must call equally often.

    Args:
        count: Numbers that are asked for.
        world_size: Number of ranks; one alone is answered at once.
    """

    def __init__(self, count: int, world_size: int = 1) -> None:
        self.count = count
        self._group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self._under_way: tuple[Any, torch.Tensor] | None = None

    def exchange(self, asked: Sequence[int]) -> tuple[int, ...]:
        """Ask, and learn what was agreed at the call before; one rank alone learns what it asks."""
        if self._group is None:
            return tuple(asked)
        agreed = self._finish()
        numbers = torch.tensor(asked, dtype=torch.int64)
        work = dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._under_way = work, numbers
        return agreed

    def settle(self, asked: Sequence[int]) -> tuple[int, ...]:
        """Ask, and wait until all ranks have."""
        before, now = self.exchange(asked), self._finish() if self._group is not None else tuple(asked)
        return tuple(map(max, before, now))

    def _finish(self) -> tuple[int, ...]:
        if self._under_way is None:
            return (0,) * self.count
        work, numbers = self._under_way
        work.wait()
        self._under_way = None
        return tuple(numbers.tolist())
