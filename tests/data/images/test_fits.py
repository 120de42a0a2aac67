import itertools
import math

import numpy as np
import pytest
from PIL import Image

from vit_attn.data.images.fits import SeenPicture, crop, grid_of, letterbox, seen_as_is, whole
from vit_attn.data.images.image_file import fit_picture

SIZES = [(30, 90), (90, 30), (50, 50), (64, 97), (301, 200), (1, 1), (1, 5000), (5000, 1), (7, 3)]
"""Widths and heights of pictures."""
BUDGETS = (1, 4, 64, 196, 577)
"""Numbers of patches."""


def position(width: int, height: int) -> Image.Image:
    """Picture whose red says how far right a pixel is, and whose green how far down."""
    right, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([right, down, 0 * down], axis=-1).round().astype(np.uint8))


def all_fits(picture: Image.Image) -> list[SeenPicture]:
    return [
        crop(picture, (32, 32)),
        crop(picture, (48, 32), 0.875),
        letterbox(picture, (32, 32), (0.4, 0.5, 0.6)),
        letterbox(picture, (32, 64), (0.4, 0.5, 0.6)),
        whole(picture, (8, 8), 16),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_the_content_show_what_the_box_says(size: tuple[int, int]):
    picture = position(*size)
    for seen in all_fits(picture):
        left, top, right, bottom = seen.content
        content = seen.pixels[top:bottom, left:right]
        expected = picture.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=seen.box)
        middle = np.s_[3:-3, 3:-3] if min(content.shape[:2]) > 8 else np.s_[:0]  # edges: the filter saw more
        assert np.abs(content.astype(int) - np.asarray(expected))[middle].max(initial=0) <= 2
        assert seen.size == (picture.height, picture.width)
        assert 0 <= seen.box[0] < seen.box[2] <= picture.width + 1e-9
        assert 0 <= seen.box[1] < seen.box[3] <= picture.height + 1e-9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
def test_the_middle_is_what_it_always_was(size: tuple[int, int], crop_pct: float):
    picture = position(*size)
    assert np.array_equal(crop(picture, (32, 24), crop_pct).pixels, fit_picture(picture, (32, 24), crop_pct))


@pytest.mark.parametrize(
    ("size", "crop_pct", "box", "note"),
    [
        ((1600, 900), 1.0, (350, 0, 1250, 900), "1600x900, the middle 900x900 is seen: 44% is cut off"),
        ((900, 1600), 1.0, (0, 350, 900, 1250), "900x1600, the middle 900x900 is seen: 44% is cut off"),
        ((400, 400), 1.0, (0, 0, 400, 400), "400x400, seen whole"),
        ((400, 400), 0.5, (100, 100, 300, 300), "400x400, the middle 200x200 is seen: 75% is cut off"),
        ((5000, 1), 1.0, (2499.5, 0, 2500.5, 1), "5000x1, the middle 1x1 is seen: more than 99% is cut off"),
    ],
)
def test_the_box_and_the_sentence_of_the_middle(size, crop_pct, box, note):
    seen = crop(Image.new("RGB", size), (100, 100), crop_pct)
    assert seen.box == pytest.approx(box)
    assert seen.note == note
    assert not seen.is_padded


def test_a_letterbox_is_whole_undistorted_and_in_the_middle():
    for width, height in SIZES:
        seen = letterbox(position(width, height), (32, 48), (0.4, 0.5, 0.6))
        left, top, right, bottom = seen.content
        assert seen.box == (0, 0, width, height)
        assert seen.cut == 0
        assert right - left == 48 or bottom - top == 32  # as large as possible
        scale = min(48 / width, 32 / height)
        assert abs(right - left - max(1, scale * width)) <= 1
        assert abs(bottom - top - max(1, scale * height)) <= 1
        assert abs(left - (48 - right)) <= 1
        assert abs(top - (32 - bottom)) <= 1
        outside = np.ones((32, 48), dtype=bool)
        outside[top:bottom, left:right] = False
        assert seen.is_padded == outside.any()
        assert (seen.pixels[outside] == [102, 128, 153]).all()
    assert letterbox(Image.new("L", (9, 9)), (4, 4), (0.5,)).pixels.shape == (4, 4, 1)
    assert letterbox(Image.new("RGB", (300, 300)), (32, 32), (0.5,) * 3).note == "300x300, seen whole"


@pytest.mark.parametrize("patches", BUDGETS)
def test_no_row_and_column_can_be_added_to_a_grid(patches: int):
    for width, height in [*itertools.product(range(1, 40, 3), repeat=2), *SIZES]:
        rows, cols = grid_of((height, width), (16, 16), patches)
        assert rows >= 1
        assert cols >= 1
        assert rows * cols <= patches < (rows + 1) * (cols + 1)


@pytest.mark.parametrize("patches", BUDGETS)
def test_a_picture_is_stretched_along_one_side_by_less_than_a_patch(patches: int):
    for width, height in itertools.product(range(1, 40, 3), repeat=2):
        if max(width / height, height / width) > patches:
            continue  # which has its own test
        rows, cols = grid_of((height, width), (16, 16), patches)
        assert min(abs(cols - rows * width / height), abs(rows - cols * height / width)) < 1


def test_pictures_of_ordinary_shapes_are_stretched_by_a_tenth_at_most_on_196_patches():
    for width in range(100, 401):
        rows, cols = grid_of((100, width), (16, 16), 196)
        assert abs(math.log(cols / rows * 100 / width)) < math.log(1.1)
        assert rows * cols > 0.85 * 196


def test_a_turned_picture_has_a_turned_grid_and_patches_need_not_be_squares():
    for width, height in [(1600, 900), (250, 600), (1, 5000), (3, 2)]:
        assert grid_of((height, width), (16, 16), 196) == grid_of((width, height), (16, 16), 196)[::-1]
    assert grid_of((100, 100), (8, 16), 128) == (16, 8)


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000)])
def test_a_line_becomes_one_row_of_all_patches(size: tuple[int, int]):
    seen = whole(position(*size), (16, 16), 196)
    grid = seen.pixels.shape[0] // 16, seen.pixels.shape[1] // 16
    assert grid == ((1, 196) if size[0] > 1 else (196, 1))
    assert seen.note.endswith("stretched 51 times")
    assert seen.is_reshaped


def test_the_sentence_of_a_whole_picture_gives_its_grid_and_its_stretch():
    assert whole(Image.new("RGB", (1600, 900)), (16, 16), 196).note == (
        "1600x900, seen whole in 10 rows of 18 patches, stretched by 1%"
    )
    square = whole(Image.new("RGB", (50, 50)), (16, 16), 196)
    assert square.note == "50x50, seen whole in 14 rows of 14 patches"
    assert not square.is_reshaped
    assert whole(Image.new("RGB", (1, 1)), (16, 16), 1).pixels.shape == (16, 16, 3)


def test_pixels_as_they_are_have_neither_crop_nor_padding():
    seen = seen_as_is(np.zeros((4, 4, 3), dtype=np.uint8))
    assert not seen.is_reshaped
    assert (seen.box, seen.size, seen.cut) == ((0, 0, 4, 4), (4, 4), 0)
