"""Intervals hold the mean as often as they say, and methods that are alike are not told apart."""

import math

import pytest
import torch

from vit_attn.attention_maps.evaluation.intervals import (
    CHANGES,
    HITS,
    Interval,
    compare_methods,
    mean_interval,
    relation,
    t_quantile,
)

SAME = "no measurable difference"


def coverage(samples: torch.Tensor, mean: float, **options) -> float:
    """Fraction of the samples, one a row, whose interval holds the mean."""
    found = [mean_interval(sample, **options) for sample in samples]
    return sum(interval.low <= mean <= interval.high for interval in found) / len(found)


@pytest.mark.parametrize(
    ("freedom", "probability", "quantile"),
    [(1, 0.975, 12.7062), (4, 0.975, 2.7764), (10, 0.9995, 4.5869), (30, 0.9995, 3.646), (200, 0.975, 1.9719)],
)
def test_quantiles_are_those_of_printed_tables(freedom, probability, quantile):
    assert t_quantile(freedom, probability) == pytest.approx(quantile, abs=1e-4)


def test_quantiles_are_continuous_where_the_expansion_begins():
    for probability in (0.975, 1 - 0.025 / 36):
        assert t_quantile(200, probability) - t_quantile(201, probability) == pytest.approx(2e-4, abs=2e-4)


@pytest.mark.parametrize("images", [8, 32])
def test_an_interval_holds_the_mean_in_95_of_100_samples(images):
    generator = torch.Generator().manual_seed(images)
    assert coverage(torch.randn(800, images, generator=generator), 0.0) == pytest.approx(0.95, abs=0.02)
    areas = torch.rand(800, images, generator=generator) ** 2  # skewed, as areas under curves are
    assert coverage(areas, 1 / 3) > 0.91


@pytest.mark.parametrize("fraction", [0.9, 0.98])
def test_a_fraction_near_one_has_an_interval_that_a_plain_one_is_too_narrow_for(fraction):
    hits = (torch.rand(800, 16, generator=torch.Generator().manual_seed(0)) < fraction).float()
    assert coverage(hits, fraction) < 0.9
    assert coverage(hits, fraction, outcomes=HITS) > 0.94
    assert coverage(-hits, -fraction, outcomes=CHANGES) > 0.94
    assert mean_interval(torch.ones(12), outcomes=HITS).low < 0.9


def test_added_outcomes_change_neither_the_mean_nor_measures_that_are_no_counts():
    values = torch.tensor([0.5, 1.0, 0.0])
    assert mean_interval(values, outcomes=HITS) == mean_interval(values)
    assert mean_interval(torch.tensor([1.0, 1.0, 0.0, 1.0]), outcomes=HITS).mean == 0.75


def test_images_without_a_value_do_not_count_and_a_single_one_has_no_interval():
    assert mean_interval(torch.tensor([1.0, math.nan, 3.0])) == mean_interval(torch.tensor([1.0, 3.0]))
    mean, low, high = mean_interval(torch.tensor([2.0, math.nan]))
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_of_nine_methods_that_are_alike_a_pair_is_told_apart_in_at_most_one_of_twenty_cases():
    generator = torch.Generator().manual_seed(1)
    called = 0
    for _ in range(100):
        image = torch.randn(1, 20, generator=generator)  # methods are alike on an image, as on real ones
        values = 10 * (image + 0.5 * torch.randn(9, 20, generator=generator))
        found = compare_methods({str(i): each for i, each in enumerate(values)}, higher_is_better=True)
        called += len(found.ties()) < 8
    assert called <= 10  # 5 % of 100 are 5


def test_methods_are_told_apart_on_the_same_images_although_images_differ_more():
    generator = torch.Generator().manual_seed(2)
    image, noise = torch.randn(64, generator=generator), 0.02 * torch.randn(3, 64, generator=generator)
    values = {"good": image - 0.2 + noise[0], "as good": image - 0.2 + noise[1], "bad": image + noise[2]}
    found = compare_methods(values, higher_is_better=False)
    assert {found.best, *found.ties()} == {"good", "as good"}
    assert (found.relation("bad", "good"), found.relation("good", "bad")) == ("worse", "better")
    upward = compare_methods(values, higher_is_better=True)
    assert (upward.best, upward.ties()) == ("bad", [])
    assert mean_interval(values["bad"]).low < mean_interval(values["good"]).mean  # unpaired, they overlap


def test_the_interval_of_a_pair_is_wider_the_more_pairs_there_are():
    generator = torch.Generator().manual_seed(3)
    values = {name: torch.randn(16, generator=generator) for name in "abcd"}
    few, many = (compare_methods({name: values[name] for name in names}, True) for names in ("ab", "abcd"))
    assert few.differences["a", "b"].mean == many.differences["a", "b"].mean
    expected = t_quantile(15, 1 - 0.025 / 6) / t_quantile(15)
    assert many.differences["a", "b"].margin / few.differences["a", "b"].margin == pytest.approx(expected)
    there, back = many.differences["a", "b"], many.differences["b", "a"]
    assert back == Interval(-there.mean, -there.high, -there.low)


def test_a_difference_counts_beyond_its_margin_and_beyond_a_hundredth():
    assert relation(0.2, 0.1) == "better"
    assert relation(-0.2, 0.1) == "worse"
    assert relation(0.1, 0.2) == SAME
    assert relation(0.009, 0.001) == SAME
    assert relation(math.nan, 0.1) == relation(0.1, math.nan) == "unknown"
