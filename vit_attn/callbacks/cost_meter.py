"""How much of a run's time something takes."""

import contextlib
import time
from collections.abc import Iterator

from lightning.pytorch.utilities.rank_zero import rank_zero_info


class CostMeter:
    """Time spent, as a share of the time since the start; several threads may spend at once.

    Args:
        most: Share of the run's time that may be spent.
        what: What it is spent on, by the name of its options on the command line.
    """

    def __init__(self, most: float, what: str = "attention") -> None:
        self.most, self.what, self.told = most, what, False
        self.start()

    def start(self) -> None:
        """Count from now."""
        self.began, self.spent, self.times = time.monotonic(), 0.0, 0

    @property
    def share(self) -> float:
        """What was spent so far, of the time since the start."""
        return self.spent / max(1e-9, time.monotonic() - self.began)

    def affords(self, progress: float) -> bool:
        """Whether one more time, and one more at the end, stay below the bound; that they do not is told once.

        Half of what the rest of the run may spend can be spent ahead, so that the beginning, where networks change
        fastest, is not left out.

        Args:
            progress: Share of the run that is done.
        """
        if self.most >= 1:
            return True
        rest, each = time.monotonic() - self.began - self.spent, self.spent / max(1, self.times)
        ahead = (rest / progress - rest) / 2 if progress > 0 else 0.0
        affords = self.spent + 2 * each <= self.most * (rest + ahead)
        if not affords and not self.told:
            self.told = True
            rank_zero_info(
                f"{self.what}: a logging takes {each:.1f} s, so some are left out to stay within {self.most:.1%} of "
                f"the run's time. To have all: --{self.what}.max_cost=1"
            )
        return affords

    @contextlib.contextmanager
    def spending(self, more: bool = False) -> Iterator[None]:
        """Count the time inside the ``with`` block; with ``more``, as another part of what was counted last."""
        begin = time.monotonic()
        self.times += not more
        try:
            yield
        finally:
            self.spent += time.monotonic() - begin
