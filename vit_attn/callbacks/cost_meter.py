"""Fraction of a run's time that logging takes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lightning.pytorch.utilities.rank_zero import rank_zero_info


class CostMeter:
    """Time spent on logging, as a fraction of the time since the start; several threads may spend at once.

    Args:
        max_fraction: Fraction of the run's time that may be spent.
        name: What the time is spent on, by the name of its options on the command line.
    """

    def __init__(self, max_fraction: float, name: str = "attention") -> None:
        self.max_fraction, self.name, self.reported = max_fraction, name, False
        self.blocking: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        """Context around the parts for which training stands still, for who times these."""
        self.start()

    def start(self) -> None:
        """Count from now."""
        self.started, self.spent, self.count = time.monotonic(), 0.0, 0

    @property
    def fraction(self) -> float:
        """Time spent so far, as a fraction of the time since the start."""
        return self.spent / max(1e-9, time.monotonic() - self.started)

    def affords(self, progress: float) -> bool:
        """Test whether one more logging, and one more at the end, stay within the bound; the first refusal is logged.

        Half of what the rest of the run may spend can be spent ahead, so that the beginning, where networks change
        fastest, is not left out.

        Args:
            progress: Fraction of the run that is done.
        """
        if self.max_fraction >= 1:
            return True
        training = time.monotonic() - self.started - self.spent
        mean = self.spent / max(1, self.count)
        ahead = (training / progress - training) / 2 if progress > 0 else 0.0
        affords = self.spent + 2 * mean <= self.max_fraction * (training + ahead)
        if not affords and not self.reported:
            self.reported = True
            rank_zero_info(
                f"{self.name}: a logging takes {mean:.1f} s, so some are left out to stay within "
                f"{self.max_fraction:.1%} of the run's time. To have all: max_cost=1, or "
                f"--{self.name}.max_cost=1"
            )
        return affords

    @contextlib.contextmanager
    def spending(self, continued: bool = False) -> Iterator[None]:
        """Count the time inside the ``with`` block.

        Args:
            continued: Whether the block is another part of the logging that was counted last, in the background.
        """
        begin = time.monotonic()
        self.count += not continued
        try:
            with contextlib.nullcontext() if continued else self.blocking():
                yield
        finally:
            self.spent += time.monotonic() - begin
