import numpy as np
import pytest
import torch

from vit_attn.data import Coins, ImageData
from vit_attn.data.datasets.coins import BUYER, COLOURS, GLYPHS, GRID, PATCH
from vit_attn.errors import UserError

UNMARKED = "ground-truth patches are known in images of the original size and channels only"


def patch_of(image: torch.Tensor, patch: int) -> np.ndarray:
    row, col = divmod(patch, GRID)
    return image[:, row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH].permute(1, 2, 0).numpy()


def shape_and_colour(image: torch.Tensor, patch: int) -> tuple[np.ndarray, tuple[int, ...]]:
    pixels = patch_of(image, patch)
    shape = pixels.any(axis=-1)
    (colour,) = {tuple(int(value) for value in pixel) for pixel in pixels[shape]}
    return shape, colour


@pytest.mark.parametrize("index", [0, 1, 255, 256, 999])
def test_the_label_is_the_glyph_of_the_coin_that_has_the_buyers_colour(index):
    coins = Coins("val")
    (image, label), answer = coins[index], coins.answer(index)
    buyer_shape, buyer_colour = shape_and_colour(image, answer.buyer)
    glyphs, colours = zip(*(shape_and_colour(image, patch) for patch in answer.coins), strict=True)
    assert np.array_equal(buyer_shape, BUYER)
    assert [colour == buyer_colour for colour in colours] == [True, False, False, False]
    assert np.array_equal(glyphs[0], GLYPHS[label])
    assert answer.bought == answer.coins[0]
    assert len({answer.buyer, *answer.coins}) == 5
    assert set(colours) <= {tuple(int(value) for value in colour) for colour in COLOURS}


def test_all_else_is_dim_noise():
    coins = Coins("train")
    (image, _), answer = coins[7], coins.answer(7)
    noise = np.stack([patch_of(image, p) for p in range(64) if p not in {answer.buyer, *answer.coins}])
    assert noise.max() < 128
    assert abs(noise.mean() - 63.5) < 2


def test_glyphs_differ_from_each_other_and_from_the_buyer():
    shapes = [*GLYPHS, BUYER]
    assert min((a != b).sum() for i, a in enumerate(shapes) for b in shapes[:i]) >= 2


def test_an_image_depends_on_seed_split_and_index_only():
    images = {name: Coins(name, size=600)[300][0] for name in ("train", "val", "test")}
    images["other seed"] = Coins("train", seed=1)[300][0]
    assert torch.equal(Coins("train", size=301)[300][0], images["train"])
    assert len({image.numpy().tobytes() for image in images.values()}) == 4


def test_splits_share_no_image():
    seen = set()
    for split in ("train", "val", "test"):
        images, _ = Coins(split, size=2000).tensors()
        seen |= {image.numpy().tobytes() for image in images}
    assert len(seen) == 6000


def test_tensors_are_the_images_one_by_one():
    coins = Coins("test", size=300)
    images, labels = coins.tensors()
    assert images.shape == (300, 3, 32, 32)
    for index in (0, 255, 256, 299):
        assert torch.equal(images[index], coins[index][0])
        assert labels[index] == coins[index][1]


def test_naming_the_commonest_glyph_is_right_in_38_of_100_images():
    coins, right = Coins("train"), 0.0
    for block in range(40):
        for glyphs in coins._block(block).glyphs:
            counts = np.bincount(glyphs, minlength=10)
            right += counts[glyphs[0]] == counts.max() and 1 / (counts == counts.max()).sum()
    assert right / (40 * 256) == pytest.approx(0.38, abs=0.015)


def test_every_glyph_is_as_common_as_any_other():
    _, labels = Coins("train", size=10_000).tensors()
    assert labels.bincount(minlength=10).float().div(1000).sub(1).abs().max() < 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "vall"}, "split must be one of train, val, test, got 'vall'"),
        ({"split": "val", "coins": 7}, "coins must be 1 to 6"),
        ({"split": "val", "coins": 0}, "coins must be 1 to 6"),
    ],
)
def test_impossible_data_sets_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Coins(**options)


@pytest.mark.parametrize("index", [-1, 2000])
def test_an_image_outside_the_split_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"0..1999, got {index}"):
        Coins("val").answer(index)


@pytest.mark.parametrize(("side", "told"), [(32, []), (64, [UNMARKED])])
def test_answers_are_known_of_images_of_their_own_size_alone_which_is_said(side: int, told: list[str]):
    data = ImageData("coins", img_size=side)
    data.prepare_data()
    assert data.remarks == told
    assert (data.probe(1).ground_truth is None) == bool(told)
