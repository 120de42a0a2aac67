"""Learning rate schedules by step, as a factor of the peak rate."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Decay = Literal["cosine", "linear"]


def warmup_decay(step: int, total: int, warmup: int, decay: Decay = "cosine") -> float:
    """Rise linearly over ``warmup`` steps, then fall to 0 at step ``total``.

    Args:
        step: Steps taken so far.
        total: Steps of the whole run.
        warmup: Steps until the peak is reached.
        decay: Shape of the fall.

    >>> [round(warmup_decay(step, total=8, warmup=2), 2) for step in range(9)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress)) if decay == "cosine" else 1 - progress


def phased(step: int, total: int, probe: int, warmup: float, decay: Decay = "cosine") -> float:
    """Apply ``warmup_decay`` to the steps of the linear probe, and again to the steps after it.

    Args:
        step: Steps taken so far.
        total: Steps of the whole run.
        probe: Steps of the linear probe; 0 for none.
        warmup: Fraction of each phase until the peak is reached.
        decay: Shape of the fall.

    >>> [round(phased(step, total=8, probe=4, warmup=0.25), 2) for step in range(9)]
    [1.0, 1.0, 0.75, 0.25, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    start, length = (0, probe) if step < probe else (probe, total - probe)
    return warmup_decay(step - start, length, int(warmup * length), decay)


def build_scheduler(optimizer: Optimizer, total: int, probe: int, warmup: float, decay: Decay) -> LambdaLR:
    """Build the scheduler of :func:`phased` for an optimiser; arguments are described there."""
    return LambdaLR(optimizer, lambda step: phased(step, total, probe, warmup, decay))


def set_scheduled_rates(schedulers: Sequence[Any]) -> None:
    """Set the optimisers' learning rates to those of their schedules; a resumed optimiser has those of its checkpoint.

    Args:
        schedulers: Schedulers; others than :class:`LambdaLR` are left alone.
    """
    for group, rate in scheduled_rates(schedulers):
        group["lr"] = rate


def scheduled_rates(schedulers: Sequence[Any]) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the parameter groups of the optimisers, each with the learning rate of its schedule at this step.

    Args:
        schedulers: Schedulers; others than :class:`LambdaLR` are left out.
    """
    for scheduler in schedulers:
        if isinstance(scheduler, LambdaLR):
            rates = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, base, factor in rates:
                yield group, float(base) * factor(scheduler.last_epoch)
