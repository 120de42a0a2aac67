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


def phased(step: int, total: int, probe: int, warmup: float, decay: Decay = "cosine") -> float:
    """``warmup_decay`` over the steps of the probe, and again over the rest, each with its own warm-up.

    Args:
        step: Steps taken so far.
        total: Steps of the whole run.
        probe: Steps of its first part; 0 for a run of one part.
        warmup: Share of each part until the top is reached.
        decay: Shape of the fall.

    >>> [round(phased(step, total=8, probe=4, warmup=0.25), 2) for step in range(9)]
    [1.0, 1.0, 0.75, 0.25, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    start, length = (0, probe) if step < probe else (probe, total - probe)
    return warmup_decay(step - start, length, int(warmup * length), decay)
