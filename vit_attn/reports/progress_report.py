"""Report of how far a command is, for commands without a progress bar."""

import time
from collections.abc import Callable

from vit_attn.console import CONSOLE
from vit_attn.reports.epoch_log import format_left

REPORT_SECONDS = 60.0
"""Seconds between two lines; a command that takes less says none."""


class ProgressReport:
    """Says how much of its work a command has done and how long the rest takes, a line a minute.

    Args:
        title: Beginning of the line, such as ``test: batch``.
        total: Parts of the work in all; infinity if that is not known.
        now: Time in seconds, from any start.
    """

    def __init__(self, title: str, total: float, now: Callable[[], float] = time.monotonic) -> None:
        self.title, self.total, self.now = title, total, now
        self.started = self.last = now()

    def advance_to(self, done: int, total: int | None = None) -> None:
        """Take note of the parts that are done, and say a line if it is time.

        Args:
            done: Parts that are done, at least 1.
            total: Parts in all, if they became known only now.
        """
        now, self.total = self.now(), total or self.total
        if now - self.last < REPORT_SECONDS or done >= self.total:
            return
        self.last, text = now, f"{self.title} {done:,}"
        if self.total != float("inf"):
            text += f" of {int(self.total):,}, {format_left((now - self.started) / done * (self.total - done))}"
        CONSOLE.say(text)
