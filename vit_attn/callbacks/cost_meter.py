"""How much of a run's time something takes."""

import contextlib
import time
from collections.abc import Iterator

from lightning.pytorch.utilities.rank_zero import rank_zero_info


class CostMeter:
    """Time spent, as a share of the time since the start; several threads may spend at once.

    Args:
        most: Share above which nothing more is afforded.
    """

    def __init__(self, most: float) -> None:
        self.most, self.spent, self.began, self.told = most, 0.0, time.monotonic(), False

    def start(self) -> None:
        """Count from now."""
        self.began, self.spent = time.monotonic(), 0.0

    @property
    def share(self) -> float:
        """What was spent so far, of the time since the start."""
        return self.spent / max(1e-9, time.monotonic() - self.began)

    def affords(self) -> bool:
        """Whether the share is still below its bound; that it is not is told once."""
        share = self.share
        if share > self.most and self.most < 1 and not self.told:
            self.told = True
            rank_zero_info(
                f"attention: logging took {share:.1%} of the time so far, more than {self.most:.1%}; some loggings are "
                f"left out. To have all: --attention.max_cost=1"
            )
        return self.most >= 1 or share <= self.most

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside the ``with`` block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - begin
