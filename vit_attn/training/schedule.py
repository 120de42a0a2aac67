"""The learning rate over the steps of a run, as a share of its top."""

import math
from typing import Literal

Decay = Literal["cosine", "linear"]


def warmup_decay(step: int, total: int, warmup: int, decay: Decay = "cosine") -> float:
    """Rise linearly over ``warmup`` steps, then fall to 0 at step ``total``.

    Args:
        step: Steps taken so far; the first step has 0.
        total: Steps of the whole run.
        warmup: Steps until the top is reached.
        decay: Shape of the fall.

    >>> [round(warmup_decay(step, total=8, warmup=2), 2) for step in range(9)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress)) if decay == "cosine" else 1 - progress
