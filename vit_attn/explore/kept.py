"""Least recently used values are dropped when their bytes exceed a budget."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Cache with a budget of bytes; the newest value stays, however large it is.

    Args:
        budget: Bytes of all values.

    >>> cache = ByteCache(10)
    >>> for name in "abc":
    ...     cache.put(name, name.upper(), 4)
    >>> cache.get("a"), cache.get("c"), cache.size
    (None, 'C', 8)
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return a value and mark it as used; None if it is not kept."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value of this many bytes, and drop those that were used longest ago."""
        self.pop(key)
        self._values[key] = value, size
        self.size += size
        while self.size > self.budget and len(self._values) > 1:
            self.pop(next(iter(self._values)))

    def pop(self, key: K) -> None:
        """Drop a value, if it is kept."""
        if key in self._values:
            self.size -= self._values.pop(key)[1]
