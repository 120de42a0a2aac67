"""Choice of the steps and images of an exported page, so that it stays small enough to open and to send."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vit_attn.errors import UserError
from vit_attn.tb_plugin.export import StepSize

MAX_MEGABYTES = 25.0
"""What mail servers accept, and what a browser opens without a wait."""
FEW_IMAGES = 4
"""Images below which fewer steps are exported, where no steps were named."""


@dataclass(frozen=True)
class ExportPlan:
    """Contents of an exported page.

    Args:
        steps: Steps.
        images: Indices of the probe images, from 0; all if none are named.
        queries_keys: Whether it has queries and keys.
        size: Bytes, within 1 %.
    """

    steps: list[int]
    images: list[int] | None
    queries_keys: bool
    size: int


def plan_export(
    sizes: Mapping[int, StepSize], steps: Sequence[int] | None, images: Sequence[int] | None, page: int, limit: float
) -> ExportPlan:
    """Choose what fits: queries and keys are left out first, then images, then steps; what was named stays.

    Args:
        sizes: Size of each logged step.
        steps: Steps that were named; first, middle and last by default.
        images: Indices of images that were named; all that fit by default.
        page: Bytes of the page without data.
        limit: Bytes that the page may take.

    Raises:
        UserError: If what was named, or one image of one step, takes more.
    """
    logged = sorted(sizes)
    default = sorted({logged[0], logged[len(logged) // 2], logged[-1]})
    choices = [sorted(steps)] if steps is not None else [default, sorted({logged[0], logged[-1]}), [logged[-1]]]
    plans = [_fewest_left_out(sizes, each, images, page, limit) for each in choices]
    fitting = [plan for plan in plans if plan.size <= limit]
    if not fitting:
        named = [word for word, value in (("steps", steps), ("images", images)) if value is not None]
        what = f"these {' and '.join(named)}" if named else f"image 1 of step {logged[-1]} alone"
        least = min(plans, key=lambda plan: plan.size).size
        raise UserError(
            f"{what} would take {least / 1e6:.1f} MB, more than {limit / 1e6:g}: allow it by "
            f"--max-megabytes={math.ceil(1.02 * least / 1e6)}{', or name fewer' if named else ''}"
        )
    enough = [plan for plan in fitting if plan.images is None or images is not None or len(plan.images) >= FEW_IMAGES]
    return (enough or fitting)[0]


def _fewest_left_out(
    sizes: Mapping[int, StepSize], steps: Sequence[int], images: Sequence[int] | None, page: int, limit: float
) -> ExportPlan:
    """Return the first plan for these steps that fits, or the smallest."""
    most = max(len(sizes[step].images) for step in steps)
    counts = [list(range(count)) for count in range(most, 0, -1)] if images is None else [list(images)]

    def plan(chosen: list[int], queries_keys: bool) -> ExportPlan:
        size = page + sum(sizes[step].total(chosen, queries_keys) for step in steps)
        everything = images is None and len(chosen) == most
        return ExportPlan(list(steps), None if everything else chosen, queries_keys, size)

    plans = [plan(counts[0], True), *(plan(chosen, False) for chosen in counts)]
    return next((each for each in plans if each.size <= limit), plans[-1])
