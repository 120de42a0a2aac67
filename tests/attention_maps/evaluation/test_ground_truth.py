from types import SimpleNamespace

import pytest
import torch

from vit_attn.attention_maps.evaluation.ground_truth import (
    ground_truth_fits,
    ground_truth_in_patches,
    ground_truth_patches,
    why_ground_truth_is_unused,
)
from vit_attn.attention_maps.recording.token_layout import TokenLayout
from vit_attn.data.datasets.coins import Coins
from vit_attn.data_protocol import GroundTruth
from vit_attn.errors import UserError

TRUTH = GroundTruth({"bought": (9,), "any_coin": (9, 63)}, (8, 8), "bought")


def probe_of(images: torch.Tensor, truth: tuple[GroundTruth, ...] | None) -> SimpleNamespace:
    return SimpleNamespace(images=images, labels=torch.zeros(len(images), dtype=torch.int64), ground_truth=truth)


def probe(size: int = 32) -> SimpleNamespace:
    return probe_of(torch.zeros(1, 3, size, size), (TRUTH,))


def layout(grid: int, patch: int) -> TokenLayout:
    return TokenLayout(1, (grid, grid), "token", patch_size=(patch, patch))


def test_regions_in_the_networks_own_grid_stay_as_they_are():
    assert ground_truth_in_patches(probe(), layout(8, 4)) == [TRUTH]


def test_in_a_finer_grid_a_region_is_all_patches_of_the_same_pixels():
    coins = Coins("val", size=4)
    for i in range(4):
        image, answer = coins[i][0], coins.answer(i)
        found = probe_of(image[None], (coins.ground_truth(i),))
        (finer,) = ground_truth_in_patches(found, layout(16, 2)) or ()
        bought = finer.regions["bought"]
        fine = image.unfold(1, 2, 2).unfold(2, 2, 2).flatten(1, 2)  # (C, 256, 2, 2)
        row, col = divmod(answer.bought, 8)
        coin = image[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
        rebuilt = torch.cat(
            [torch.cat([fine[:, n] for n in pair], dim=-1) for pair in (bought[:2], bought[2:])], dim=-2
        )
        assert torch.equal(rebuilt, coin)


@pytest.mark.parametrize(("grid", "patch"), [(4, 8), (2, 16), (6, 5), (10, 3)])
def test_ground_truth_whose_patches_do_not_meet_at_the_same_pixels_is_unused_and_the_user_is_told(
    grid: int, patch: int
):
    assert ground_truth_in_patches(probe(), layout(grid, patch)) is None
    message = why_ground_truth_is_unused(probe(), layout(grid, patch))
    assert f"8 by 8 patches, which are not whole patches of the network's {grid} by {grid}" in message
    assert "\n" not in message


def test_a_grid_that_leaves_pixels_out_does_not_fit():
    assert ground_truth_in_patches(probe(34), layout(8, 4)) is None


def test_there_is_no_message_where_ground_truth_fits_or_does_not_exist():
    assert why_ground_truth_is_unused(probe(), layout(16, 2)) == ""
    assert why_ground_truth_is_unused(probe_of(torch.zeros(1, 3, 32, 32), None), layout(4, 8)) == ""


def test_masks_hold_regions_of_any_size_and_an_image_without_a_region_has_an_empty_one():
    other = GroundTruth({"any_coin": (0, 1, 2), "hand": (5,)}, (8, 8), "hand", edges=(("hand", "any_coin"),))
    found = ground_truth_patches(probe_of(torch.zeros(2, 3, 32, 32), (TRUTH, other)), layout(8, 4), "cpu")
    assert found is not None
    assert {name: [row.nonzero()[:, 0].tolist() for row in mask] for name, mask in found.regions.items()} == {
        "bought": [[9], []],
        "any_coin": [[9, 63], [0, 1, 2]],
        "hand": [[], [5]],
    }
    assert found.edges == (("hand", "any_coin"),)


def test_there_are_no_masks_without_ground_truth_or_where_it_does_not_fit():
    assert ground_truth_patches(probe_of(torch.zeros(1, 3, 32, 32), None), layout(8, 4), "cpu") is None
    assert ground_truth_patches(probe(), layout(4, 8), "cpu") is None
    assert not ground_truth_fits(probe_of(torch.zeros(1, 3, 32, 32), ()), layout(8, 4))


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (GroundTruth({"object": (3, 64, -1)}, (8, 8), "object"), r"'object' of image 1 .* in 0..63, got \[64, -1\]"),
        (
            GroundTruth({"object": (3,)}, (8, 8), "objekt"),
            "answer of image 1 .* region of object, .* did you mean 'object'",
        ),
        (GroundTruth({}, (8, 8), "object"), "answer of image 1 must be a region of some image, got 'object'"),
        (GroundTruth({"a": (3,)}, (8, 8), "a", (("a", "b"),)), "edges must join regions of a, got b"),
    ],
)
def test_ground_truth_that_names_what_is_not_there_is_refused(truth: GroundTruth, message: str):
    with pytest.raises(UserError, match=message):
        ground_truth_patches(probe_of(torch.zeros(1, 3, 32, 32), (truth,)), layout(8, 4), "cpu")
