from types import SimpleNamespace

import pytest
import torch

from vit_attn.attention_maps.evaluation.ground_truth import ground_truth, said_of
from vit_attn.attention_maps.recording.token_layout import TokenLayout
from vit_attn.data.datasets.coins import Coins
from vit_attn.data_protocol import GroundTruth

TRUTH = GroundTruth({"bought": (9,), "any_coin": (9, 63)}, (8, 8), "bought")


def of(images: torch.Tensor, truth: tuple[GroundTruth, ...] | None) -> SimpleNamespace:
    return SimpleNamespace(images=images, labels=torch.zeros(1, dtype=torch.int64), ground_truth=truth)


def probe(size: int = 32) -> SimpleNamespace:
    return SimpleNamespace(
        images=torch.zeros(1, 3, size, size), labels=torch.zeros(1, dtype=torch.int64), ground_truth=(TRUTH,)
    )


def layout(grid: int, patch: int) -> TokenLayout:
    return TokenLayout(1, (grid, grid), "token", patch_size=(patch, patch))


def test_answers_in_the_networks_own_grid_stay_as_they_are():
    assert ground_truth(probe(), layout(8, 4), "bought") == [(9,)]
    assert ground_truth(probe(), layout(8, 4), "any_coin") == [(9, 63)]


def test_in_a_finer_grid_an_answer_is_all_patches_of_the_same_pixels():
    coins = Coins("val", size=4)
    for i in range(4):
        image, answer = coins[i][0], coins.answer(i)
        found = of(image[None], (coins.ground_truth(i),))
        (bought,) = ground_truth(found, layout(16, 2), "bought") or ()
        fine = image.unfold(1, 2, 2).unfold(2, 2, 2).flatten(1, 2)  # (C, 256, 2, 2)
        row, col = divmod(answer.bought, 8)
        coin = image[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
        rebuilt = torch.cat(
            [torch.cat([fine[:, n] for n in pair], dim=-1) for pair in (bought[:2], bought[2:])], dim=-2
        )
        assert torch.equal(rebuilt, coin)


@pytest.mark.parametrize(("grid", "patch"), [(4, 8), (2, 16), (6, 5), (10, 3)])
def test_where_patches_do_not_meet_at_the_same_pixels_no_answer_is_named_and_that_is_said(grid: int, patch: int):
    assert ground_truth(probe(), layout(grid, patch), "bought") is None
    said = said_of(probe(), layout(grid, patch))
    assert f"8 by 8 patches, which are not whole patches of the network's {grid} by {grid}" in said
    assert "\n" not in said


def test_a_grid_that_leaves_pixels_out_fits_no_answer():
    assert ground_truth(probe(34), layout(8, 4), "bought") is None


def test_where_answers_can_be_used_or_there_are_none_nothing_is_said():
    assert said_of(probe(), layout(16, 2)) == ""
    assert said_of(of(torch.zeros(1, 3, 32, 32), None), layout(4, 8)) == ""
