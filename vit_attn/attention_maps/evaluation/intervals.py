"""95 % intervals of means over images, and comparison of methods with each other on the same images."""

import itertools
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_DIFFERENCE = 0.01
"""Differences up to this do not count, however certain: one hundredth of a probability, or of a logit."""
LEVEL = 0.95
"""Probability with which an interval holds the mean of all images of which those measured are a sample."""
EXACT_FREEDOM = 200
"""Degrees of freedom from which an expansion gives quantiles of Student's t to six digits."""
HITS, CHANGES = (0.0, 0.0, 1.0, 1.0), (-1.0, 1.0)
"""Outcomes that are added to those of the images for the interval of a fraction, and of a change of a fraction."""
Relation = Literal["better", "no measurable difference", "worse", "unknown"]


class Interval(NamedTuple):
    """Mean over images with its interval; NaN where it is undefined, the bounds also for a single image."""

    mean: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half-width."""
        return (self.high - self.low) / 2


class Comparisons(NamedTuple):
    """Methods compared with each other by one measure, each pair on the same images.

    Args:
        best: Label of the method with the best mean.
        differences: First method minus second, for every ordered pair. The intervals hold for all pairs at once: each
            has the level 1 - 0.05 / pairs (Bonferroni).
        higher_is_better: Whether a high value is good.
    """

    best: str
    differences: dict[tuple[str, str], Interval]
    higher_is_better: bool

    def relation(self, method: str, other: str) -> Relation:
        """Relation of a method to another one."""
        difference = self.differences[method, other]
        return relation(difference.mean if self.higher_is_better else -difference.mean, difference.margin)

    def ties(self) -> list[str]:
        """Methods with no measurable difference from the best."""
        labels = dict.fromkeys(label for label, _ in self.differences)
        return [x for x in labels if x != self.best and self.relation(x, self.best) == "no measurable difference"]


def relation(gain: float, margin: float) -> Relation:
    """Name the relation that a gain shows.

    Args:
        gain: Difference in the direction that is better.
        margin: Half-width of its interval.
    """
    if not (math.isfinite(gain) and math.isfinite(margin)):
        return "unknown"
    if abs(gain) <= max(margin, SMALLEST_DIFFERENCE):
        return "no measurable difference"
    return "better" if gain > 0 else "worse"


def mean_interval(values: Float[Tensor, " B"], statements: int = 1, outcomes: tuple[float, ...] = ()) -> Interval:
    """Mean over the images that have a value, with Student's t interval.

    Where values are counted outcomes, all or nearly all images often have the same one, and a plain interval is too
    narrow. Then some outcomes are added for the interval, not for the mean.

    Args:
        values: One per image; NaN where an image has none.
        statements: Number of intervals that hold at once with 95 % (Bonferroni's correction).
        outcomes: Outcomes that are added, such as ``HITS`` or ``CHANGES``, if all values are whole numbers.

    References:
        Agresti & Coull 1998, "Approximate is better than exact for interval estimation of binomial proportions";
        Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions".
    """
    values = values[~values.isnan()].double().cpu()
    mean = values.mean().item()
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    if outcomes and bool((values == values.round()).all()):
        values = torch.cat([values, torch.tensor(outcomes, dtype=values.dtype)])
    quantile = t_quantile(len(values) - 1, 1 - (1 - LEVEL) / 2 / statements)
    middle, margin = values.mean().item(), quantile * values.std().item() / math.sqrt(len(values))
    return Interval(mean, middle - margin, middle + margin)


def compare_methods(values: Mapping[str, Float[Tensor, " B"]], higher_is_better: bool) -> Comparisons:
    """Compare every two methods by the paired differences of a measure.

    Args:
        values: By method, one value per image, of the same images.
        higher_is_better: Whether a high value is good.
    """
    pairs = list(itertools.combinations(values, 2))
    differences = {}
    for method, other in pairs:
        mean, low, high = mean_interval(values[method] - values[other], len(pairs))
        differences[method, other] = Interval(mean, low, high)
        differences[other, method] = Interval(-mean, -high, -low)
    sign = 1 if higher_is_better else -1
    means = {label: sign * mean_interval(each).mean for label, each in values.items()}
    defined = [label for label in means if not math.isnan(means[label])]
    return Comparisons(max(defined or means, key=means.__getitem__), differences, higher_is_better)


def t_quantile(freedom: int, probability: float = 0.975) -> float:
    """Quantile of Student's t distribution.

    Args:
        freedom: Degrees of freedom, at least 1.
        probability: Probability of a lower value, above 0.5.

    References:
        Abramowitz & Stegun 1964, "Handbook of mathematical functions", 26.7.3 to 26.7.5.

    >>> [round(t_quantile(freedom), 3) for freedom in (1, 2, 3, 7, 255)]
    [12.706, 4.303, 3.182, 2.365, 1.969]
    """
    if freedom > EXACT_FREEDOM:
        z = NormalDist().inv_cdf(probability)
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        )
        return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    low, high = 0.0, math.pi / 2
    while high - low > 1e-12:
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 2 * probability - 1 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability that |t| is at most sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= (k - 1) / k * math.cos(angle) ** 2
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)
