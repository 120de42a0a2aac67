"""Whether a map does better than chance: the margins hold what they say, and the areas are those of the curves."""

import math

import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps.evaluation.baselines import Comparison, compare, deletion_areas, judge_maps
from vit_attn.attention_maps.evaluation.faithfulness import centre_first_map, deletion, insertion, order_of, random_maps
from vit_attn.model import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 48, "depth": 2, "num_heads": 4}
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


SAME = "no measurable difference"


@pytest.fixture
def net() -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(**SIZES).eval()
    torch.nn.init.normal_(net.head.weight)
    return net


@pytest.mark.parametrize("batch", [7, 128])
def test_the_areas_of_several_orders_are_those_of_their_curves(net, batch):
    orders = torch.stack([order_of(random_maps((5, 64), seed)) for seed in range(3)])
    target = torch.tensor([1, 2, 3, 4, 5])
    areas = deletion_areas(net, IMAGES, orders, target, 8, batch)
    back = deletion_areas(net, IMAGES, orders.flip(-1), target, 8)
    for order, down, up in zip(orders, areas, back, strict=True):
        assert_close(down, deletion(net, IMAGES, order, target, 8).area)
        assert_close(up, insertion(net, IMAGES, order, target, 8).area)
    for steps in (1, 5):  # patches are no multiple of 5
        assert_close(
            deletion_areas(net, IMAGES, orders, target, steps)[0], deletion(net, IMAGES, orders[0], target, steps).area
        )


def test_a_method_is_judged_by_its_own_map_beside_both_baselines(net):
    maps = {"one": random_maps((5, 64), 70), "other": random_maps((5, 64), 71)}
    target = torch.tensor([1, 2, 3, 4, 5])
    found = judge_maps(net, IMAGES, maps, target)
    centre = order_of(centre_first_map((8, 8)))
    random = [deletion(net, IMAGES, order_of(random_maps((5, 64), seed)), target, 8).area for seed in range(8)]
    for name, patches in maps.items():
        down = deletion(net, IMAGES, order_of(patches), target, 8).area
        expected = compare(down, torch.stack(random), deletion(net, IMAGES, centre, target, 8).area)
        assert found.overall[name]["deletion"] == pytest.approx(expected, abs=1e-6)
        up = insertion(net, IMAGES, order_of(patches), target, 8).area
        assert found.by_image[3][name]["insertion"].value == pytest.approx(up[3].item(), abs=1e-6)
    assert found.orders == 8
    assert len(found.by_image) == 5


def test_a_map_that_is_itself_a_random_order_is_called_different_in_few_of_many_cases():
    generator = torch.Generator().manual_seed(3)
    called = {1: 0, 8: 0}
    for images in called:
        for _ in range(400):
            areas = 0.3 + 0.1 * torch.randn(10, images, generator=generator)  # a map, eight random orders, centre first
            relations = compare(areas[0], areas[1:9], areas[9]).relations(higher_is_better=False)
            called[images] += relations[0] != SAME
    assert 5 <= called[1] <= 40  # 5 % of 400 are 20
    assert called[8] <= 20


def test_a_single_order_differs_from_centre_first_by_chance_in_one_of_twenty_cases():
    generator = torch.Generator().manual_seed(4)
    areas = 0.5 + 0.1 * torch.randn(4000, 10, 1, generator=generator)  # a map, eight random orders, centre first
    found = [compare(each[0], each[1:9], each[9]).relations(higher_is_better=True) for each in areas]
    beside_random, beside_centre = (sum(pair[i] != SAME for pair in found) / len(found) for i in (0, 1))
    assert beside_random == pytest.approx(0.05, abs=0.01)
    assert beside_centre == pytest.approx(0.05, abs=0.01)


def test_the_margin_beside_centre_first_is_of_two_orders_and_beside_random_ones_of_their_mean():
    random = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])[:, None]
    found = compare(torch.tensor([0.5]), random, torch.tensor([0.5]))
    deviation = random.double().std().item()
    assert found.random_margin == pytest.approx(2.365 * deviation * math.sqrt(1 + 1 / 8), rel=1e-2)
    assert found.centre_margin == pytest.approx(2.365 * deviation * math.sqrt(2), rel=1e-2)


def test_the_margin_covers_the_spread_of_the_differences_over_images():
    differences = torch.tensor([0.0, 0.1, 0.2, 0.5])
    found = compare(0.3 + differences, torch.full((8, 4), 0.3), torch.full((4,), 0.3) - differences)
    half_width = 3.182 * differences.double().std().item() / math.sqrt(4)
    assert found.random_margin == pytest.approx(half_width, rel=1e-2)
    assert found.centre_margin == pytest.approx(2 * half_width, rel=1e-2)  # paired: the difference is twice as large
    assert found.relations(higher_is_better=True) == (SAME, SAME)


def test_a_difference_that_all_images_share_counts_and_its_sign_is_the_measures():
    random = 0.4 + 0.01 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    found = compare(random.mean(dim=0) - 0.2, random, torch.full((16,), 0.1))
    assert found.relations(higher_is_better=False) == ("better", "worse")
    assert found.relations(higher_is_better=True) == ("worse", "better")


def test_thirty_steps_of_training_are_no_measurable_difference():
    """What the tab once called better than random: 0.145 against one random order's 0.154."""
    random = 0.154 + 0.02 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found = compare(torch.tensor([0.13, 0.16, 0.15, 0.14]), random, torch.tensor([0.15, 0.15, 0.14, 0.16]))
    assert found.relations(higher_is_better=False) == (SAME, SAME)


def test_differences_below_a_hundredth_count_for_nothing():
    same = torch.full((4,), 0.5)
    for gain, relation in ((0.009, SAME), (0.011, "better")):
        found = compare(same - gain, torch.full((8, 4), 0.5), same)
        assert found.random_margin == found.centre_margin == 0.01
        assert found.relations(higher_is_better=False) == (relation, relation)


def test_what_is_not_a_number_is_unknown_and_no_difference():
    found = compare(torch.tensor([math.nan, 0.1]), torch.rand(8, 2), torch.rand(2))
    assert found.relations(higher_is_better=True) == ("unknown", "unknown")
    assert Comparison(0.1, 0.2, math.nan, 0.2, 0.1).relations(higher_is_better=False) == ("unknown", SAME)
