import numpy as np
import pytest

from vit_attn.plotting.canvas import INK, Box, Canvas
from vit_attn.plotting.scale import Scale

RED = (255, 0, 0)


def inked(canvas: Canvas) -> np.ndarray:
    """Pixels of the canvas that are not white, as (y, x) of the pixels."""
    return np.argwhere((canvas.pixels() != 255).any(axis=-1))


def test_a_box_is_divided_into_cells_that_meet():
    box = Box(1.0, 2.0, 3.0, 4.0)
    first, next_to_it = box.part(1, 0, 2, 3), box.part(1, 1, 2, 3)
    assert first == Box(1.0, 4.0, 1.0, 2.0)
    assert next_to_it.left == first.left + first.width
    assert box.centre == 2.5


def test_a_picture_fills_its_box_and_its_pixels_stay_squares():
    canvas = Canvas(2, 1, dpi=100)
    picture = np.array([[RED, (0, 0, 255)]], dtype=np.uint8)
    canvas.place(picture, Box(0.5, 0.25, 1.0, 0.5))
    drawn = canvas.pixels()
    assert (drawn[25:75, 50:100] == RED).all()
    assert (drawn[25:75, 100:150] == (0, 0, 255)).all()
    assert len(inked(canvas)) == 100 * 50


@pytest.mark.parametrize(("anchor", "side"), [("lt", (1, 1)), ("rb", (-1, -1)), ("lb", (1, -1)), ("rt", (-1, 1))])
def test_words_stand_on_the_side_of_their_place_that_the_anchor_names(anchor: str, side: tuple[int, int]):
    canvas = Canvas(2, 2, dpi=100)
    canvas.write("quantity", 1.0, 1.0, 10, anchor)
    y, x = inked(canvas).mean(axis=0) - 100
    assert (np.sign(x), np.sign(y)) == side


def test_words_that_do_not_fit_end_in_an_ellipsis_within_their_width():
    long, short = Canvas(4, 0.5, dpi=100), Canvas(4, 0.5, dpi=100)
    long.write("a name that goes on and on", 0.0, 0.1, 10, "lt")
    short.write("a name that goes on and on", 0.0, 0.1, 10, "lt", most=0.7)
    assert inked(long)[:, 1].max() > 100
    assert 40 < inked(short)[:, 1].max() <= 70


def test_lines_of_words_follow_each_other_downward():
    one, two = Canvas(1, 1, dpi=100), Canvas(1, 1, dpi=100)
    one.write("a", 0.5, 0.1, 10)
    two.write("a\na", 0.5, 0.1, 10)
    assert len(inked(two)) == 2 * len(inked(one))
    assert inked(two)[:, 0].max() > inked(one)[:, 0].max() + 10


def test_words_that_run_upward_are_higher_than_wide():
    canvas = Canvas(1, 1, dpi=100)
    canvas.write_upward("attention", 0.5, 0.5, 8)
    (top, left), (bottom, right) = inked(canvas).min(axis=0), inked(canvas).max(axis=0)
    assert bottom - top > 3 * (right - left)
    assert abs((top + bottom) / 2 - 50) <= 2


def test_an_outline_lies_within_its_box_and_a_dotted_one_has_gaps():
    solid, dotted = Canvas(1, 1, dpi=100), Canvas(1, 1, dpi=100)
    box = Box(0.2, 0.3, 0.4, 0.2)
    solid.outline(box, "#ff0000", 1.44)
    dotted.outline(box, "#ff0000", 1.44, "dotted")
    for canvas in (solid, dotted):
        assert inked(canvas).min(axis=0).tolist() == [30, 20]
        assert inked(canvas).max(axis=0).max() <= 59
    assert 0.4 < len(inked(dotted)) / len(inked(solid)) < 0.7


@pytest.mark.parametrize("most", [0.037, 1.0, 7.3, 100.0])
def test_the_numbers_of_a_scale_are_round_and_on_it(most: float):
    ticks = Scale(most).ticks()
    assert 3 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert ticks[-1] <= most
    assert all(float(f"{tick:.3g}") == pytest.approx(tick) for tick in ticks)


def test_the_root_lifts_small_values_and_keeps_the_ends():
    plain, root, values = Scale(4.0), Scale(4.0, root=True), np.array([0.0, 1.0, 4.0])
    assert plain.position(values).tolist() == [0, 0.25, 1]
    assert root.position(values).tolist() == [0, 0.5, 1]


def test_values_beyond_the_scale_take_its_ends_and_nothing_divides_by_zero():
    scale = Scale(2.0)
    assert (scale.colours(np.array([[9.0]])) == scale.colours(np.array([[2.0]]))).all()
    assert (Scale(0.0).colours(np.zeros((1, 1))) == scale.colours(np.zeros((1, 1)))).all()


def test_the_bar_shows_each_colour_where_its_number_stands():
    scale, canvas, box = Scale(10.0, root=True), Canvas(2, 1, dpi=100), Box(0.2, 0.2, 1.6, 0.1)
    canvas.scale_bar(scale, box, "%")
    drawn = canvas.pixels().astype(int)
    for value in (2.0, 6.0, 9.0):
        x = round(100 * (box.left + box.width * scale.position(np.array([value]))[0]))
        assert np.abs(drawn[25, x] - scale.colours(np.array([[value]]))[0, 0]).max() <= 6
    dark = np.argwhere((drawn == np.array([int(INK[i : i + 2], 16) for i in (1, 3, 5)])).all(axis=-1))
    assert dark[:, 0].max() > 32  # ticks and numbers below the bar


@pytest.mark.parametrize("text", ["a b c d e f g h i j k l m n", "runs/of/a/deep/folder/name", "x" * 40, "a\nb c d"])
def test_wrapped_text_keeps_all_characters_within_the_width(text: str):
    canvas = Canvas(1, 1, dpi=100)
    wrapped = canvas.wrap(text, 0.8)
    assert wrapped.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert max(map(canvas.length, wrapped.split("\n"))) <= 0.8
    assert len(wrapped.split("\n")) > 1


def test_text_of_too_many_lines_ends_in_an_ellipsis():
    wrapped = Canvas(1, 1, dpi=100).wrap("a b c d e f g h i j k l m n", 0.5, lines=2)
    assert wrapped.count("\n") == 1
    assert wrapped.endswith("…")


def test_a_map_lies_over_a_grey_image_in_the_parts_that_it_speaks_of():
    grey, values = np.zeros((4, 6, 1)), np.array([[0.0, 1.0], [1.0, 0.0]])
    over = Scale(1.0, opacity=0.5).over(grey, values)
    colours = Scale(1.0).colours(values)
    assert over.shape == (4, 6, 3)
    assert np.abs(over[0, 0] - colours[0, 0] / 2).max() <= 0.5
    assert np.abs(over[3, 0] - colours[1, 0] / 2).max() <= 0.5
    assert (over[:2, :3] == over[0, 0]).all()
