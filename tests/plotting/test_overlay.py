from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vit_attn.plotting.canvas import POINTS, Canvas
from vit_attn.plotting.comparison import draw_heads, draw_side_by_side
from vit_attn.plotting.matrices import draw_matrices
from vit_attn.plotting.overlay import AttentionMap, Mark, draw_overlays, draw_sheet, padded_patches
from vit_attn.plotting.panels import BAR_HEIGHT, BAR_TEXT, place_legend

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
YELLOW = np.array([253, 231, 37])  # the top of viridis


def one_patch(row: int, col: int) -> np.ndarray:
    patches = np.full((4, 6), 0.01)
    patches[row, col] = 0.77
    return patches


def yellow(picture: np.ndarray) -> np.ndarray:
    """Where a picture is closest to the top of the colours, as the mean (x, y) of the strongest hundredth."""
    distance = np.abs(picture.astype(float) - YELLOW).sum(axis=-1)
    distance[-120:] = 1e9  # the colour bar
    ys, xs = np.nonzero(distance <= np.quantile(distance, 0.005))
    return np.array([xs.mean(), ys.mean()])


def test_the_strongest_patch_is_drawn_where_it_lies_in_the_image():
    black = np.zeros_like(IMAGE)
    corner = yellow(draw_overlays(black, "a", [AttentionMap("b", one_patch(0, 0))], dpi=200))
    right = yellow(draw_overlays(black, "a", [AttentionMap("b", one_patch(0, 5))], dpi=200))
    below = yellow(draw_overlays(black, "a", [AttentionMap("b", one_patch(3, 0))], dpi=200))
    assert right[0] > corner[0] + 100
    assert abs(right[1] - corner[1]) < 3
    assert below[1] > corner[1] + 60
    assert abs(below[0] - corner[0]) < 3


def test_marks_prefix_and_every_map_change_the_picture():
    maps = [AttentionMap("last layer", one_patch(1, 1)), AttentionMap("rollout", one_patch(2, 2))]
    plain = draw_overlays(IMAGE, "cat", maps)
    assert plain.dtype == np.uint8
    assert not np.array_equal(plain, draw_overlays(IMAGE, "cat", maps, [Mark("buyer", 3, "dotted")]))
    told = [AttentionMap("last layer", one_patch(1, 1), prefix=0.4), maps[1]]
    assert not np.array_equal(plain, draw_overlays(IMAGE, "cat", told))
    assert draw_overlays(IMAGE, "cat", maps[:1]).shape[0] < plain.shape[0]


def test_maps_beside_each_other_share_one_scale():
    """Half the attention must not look like all of it."""
    weak = AttentionMap("weak", one_patch(1, 1) / 2)
    alone = draw_overlays(IMAGE, "cat", [weak], dpi=200)
    beside = draw_overlays(IMAGE, "cat", [weak, AttentionMap("strong", one_patch(1, 1))], dpi=200)
    x = slice(400, 740)  # within the weak map's panel
    assert not np.array_equal(alone[120:280, x], beside[120:280, x])


def test_every_layer_has_its_matrix():
    layers = np.random.default_rng(0).dirichlet(np.ones(9), (6, 9))
    picture = draw_matrices(layers, 1, "cat")
    assert picture.dtype == np.uint8
    assert draw_matrices(layers[:2], 1, "cat").shape[0] < picture.shape[0]
    changed = layers.copy()
    changed[5, 3] = np.eye(9)[0]
    assert not np.array_equal(picture, draw_matrices(changed, 1, "cat"))


def test_a_mark_of_several_patches_is_one_outline_around_them():
    maps = [AttentionMap("last layer", one_patch(1, 1))]
    plain, one, block = (
        draw_overlays(IMAGE, "cat", maps, marks, dpi=200)
        for marks in ([], [Mark("a", 7)], [Mark("a", 7, rows=2, cols=3)])
    )

    def outlined(picture: np.ndarray) -> np.ndarray:
        ys, xs = np.nonzero(
            (picture[:300, :370] != plain[:300, :370]).any(axis=-1)
        )  # of the image alone, above the legend
        return np.array([np.ptp(ys), np.ptp(xs)])

    line = 6
    assert (np.abs(outlined(block) - outlined(one) * np.array([2, 3])) <= 2 * line).all()


@pytest.mark.parametrize("dpi", [100, 200])
@pytest.mark.parametrize(
    "names", [["bought", "buyer"], ["object", "left wing", "right wing", "a", "b"], ["x" * 60, "y"]]
)
def test_a_legend_stays_below_its_image(names: list[str], dpi: int):
    maps, marks = (
        [AttentionMap("rollout", one_patch(1, 1), note="for cat")],
        [Mark(name, 7, "dotted") for name in names],
    )
    plain, marked = draw_overlays(IMAGE, "cat", maps, dpi=dpi), draw_overlays(IMAGE, "cat", maps, marks, dpi=dpi)
    bar = round((BAR_HEIGHT + BAR_TEXT) * dpi)
    assert np.array_equal(marked[-bar:], plain[-bar:])
    legend = marked[len(plain) - bar - 2 : len(marked) - bar - round(0.04 * dpi)]
    assert (legend != 255).any()
    assert (legend[:, -2:] == 255).all()


def test_every_name_is_in_the_legend_once_and_two_short_ones_share_a_line():
    entries = place_legend(["bought", "buyer", "any other coin", "hand"], 1.7, 100)
    assert [(entry.name, round(entry.left, 6), round(entry.top, 6)) for entry in entries] == [
        *(("bought", 0.05, 0.0), ("buyer", 0.85, 0.0)),
        *(("any other coin", 0.05, 0.18), ("hand", 0.05, 0.36)),
    ]
    assert draw_overlays(IMAGE, "cat", [AttentionMap("a", one_patch(0, 0))], [Mark("a", 1), Mark("a", 9)]).shape == (
        draw_overlays(IMAGE, "cat", [AttentionMap("a", one_patch(0, 0))], [Mark("a", 1)]).shape
    )


def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Texts that are written from now on, with their font size."""
    found: list[tuple[str, float]] = []
    original = Canvas.write

    def write(self: Canvas, text: str, x: float, y: float, points: float = POINTS, *args: Any, **options: Any) -> None:
        found.append((text, points))
        original(self, text, x, y, points, *args, **options)

    monkeypatch.setattr(Canvas, "write", write)
    return found


def figures() -> dict[str, Callable[[], np.ndarray]]:
    rng = np.random.default_rng(0)
    maps = [AttentionMap(f"method {i}", one_patch(1, 1), note="for a class") for i in range(5)]
    return {
        "overlays": lambda: draw_overlays(IMAGE, HEADING, maps, [Mark("a", 1), Mark("b", 2)]),
        "matrices": lambda: draw_matrices(rng.dirichlet(np.ones(9), (12, 9)), 1, HEADING),
        "sheet": lambda: draw_sheet(rng.random((3, 4, 4, 4)), HEADING, rng.random((3, 4))),
        "sheet of ViT-B": lambda: draw_sheet(rng.random((12, 12, 4, 4)), HEADING, rng.random((12, 12))),
        "heads": lambda: draw_heads(rng.random((12, 6)), HEADING, "nats"),
        "side by side": lambda: draw_side_by_side(IMAGE, HEADING, {"source": maps, "tuned": maps}),
    }


HEADING = "quickstart/20260101-120000-abcd, step 300\nvit_attn_tiny_patch4_32\nlabel: a; prediction: b ✗"


@pytest.mark.parametrize("name", figures())
def test_text_is_13_pixels_high_where_tensorboard_draws_a_figure_350_pixels_wide(monkeypatch, name: str):
    texts = written(monkeypatch)
    picture = figures()[name]()
    assert picture.shape[1] == 700
    assert min(points for _, points in texts) * 200 / 72 * 350 / picture.shape[1] >= 13


@pytest.mark.parametrize("name", figures())
def test_a_heading_is_wrapped_and_never_cut(monkeypatch, name: str):
    texts = written(monkeypatch)
    monkeypatch.setattr("tests.plotting.test_overlay.HEADING", HEADING + "; of the class " + "longname " * 20)
    figures()[name]()
    (heading,) = [text for text, _ in texts if text.startswith("quickstart/")]
    assert heading.count("longname") == 20
    assert "…" not in heading
    assert max(map(len, heading.split("\n"))) < 60


def test_layers_are_rows_and_heads_are_columns_whichever_are_more(monkeypatch):
    for shape in ((2, 6), (6, 2)):
        texts = written(monkeypatch)
        maps = np.full((*shape, 4, 4), 0.01)
        maps[1, 0, 0, 0] = 1.0  # layer 2, head 1
        strongest = np.argwhere((draw_sheet(maps, "")[:-120] == YELLOW).all(axis=-1)).mean(axis=0)
        maps[1, 0, 0, 0], maps[0, 1, 0, 0] = 0.01, 1.0
        other = np.argwhere((draw_sheet(maps, "")[:-120] == YELLOW).all(axis=-1)).mean(axis=0)
        assert strongest[0] > other[0] + 20  # below
        assert strongest[1] < other[1] - 20  # at its left
        assert "head" in [text for text, _ in texts]


def test_a_scale_by_the_square_root_is_labelled_as_such(monkeypatch):
    texts = written(monkeypatch)
    draw_sheet(np.random.default_rng(0).random((2, 2, 4, 4)), "")
    draw_matrices(np.random.default_rng(0).dirichlet(np.ones(9), (2, 9)), 1, "")
    assert len([text for text, _ in texts if text.endswith("square-root scale")]) == 2
    draw_overlays(IMAGE, "", [AttentionMap("a", one_patch(0, 0))])
    assert texts[-1][0] == "% per patch"


def test_padding_is_white_in_the_image_and_grey_in_maps():
    padding = np.zeros((32, 48), dtype=bool)
    padding[:, 36:] = True  # a row and a half of the patches at the right
    maps = [AttentionMap("a", np.arange(24).reshape(4, 6) / 24)]
    drawn = draw_overlays(np.full_like(IMAGE, 50), "", maps, dpi=200, padding=padding)
    plain = draw_overlays(np.full_like(IMAGE, 50), "", maps, dpi=200)
    panels = drawn[60:200].astype(int)
    changed = np.nonzero((drawn[60:200] != plain[60:200]).any(axis=(0, 2)))[0]
    image, over = changed[changed < 350], changed[changed >= 350]
    assert len(image) == pytest.approx(len(over), abs=1)  # a quarter of each panel
    assert (panels[:, image] == 255).all()
    assert np.ptp(panels[:, over], axis=-1).max() == 0
    assert np.ptp(panels[:, over[0] - 100], axis=-1).max() > 20


def test_a_patch_is_padding_if_all_its_pixels_are():
    padding = np.zeros((8, 12), dtype=bool)
    padding[:3] = padding[:, 10:] = True
    assert padded_patches(padding, (4, 3)).tolist() == [[True] * 3, [False] * 3, [False] * 3, [False] * 3]
    assert not padded_patches(~padding, (8, 12))[0].any()


@pytest.mark.parametrize("grid", [(1, 200), (200, 1)])
def test_figures_of_very_long_images_stay_small(grid: tuple[int, int]):
    image, maps = np.zeros((4 * grid[0], 4 * grid[1], 3), dtype=np.uint8), np.full(grid, 1 / 200)
    over = draw_overlays(image, "", [AttentionMap("a", maps)], dpi=100)
    sheet = draw_sheet(np.broadcast_to(maps, (3, 2, *grid)), "", dpi=100)
    for drawn in (over, sheet):
        assert 50 < drawn.shape[0] < 1500
        assert drawn.shape[1] == 350


def test_padding_in_a_sheet_is_grey_and_as_light():
    maps, padding = np.full((1, 1, 2, 2), 0.25), np.array([[True, False], [False, True]])
    drawn = draw_sheet(maps, "", dpi=100, padding=padding).astype(float)
    colours = {tuple(colour) for colour in drawn[60:200, 60:330].reshape(-1, 3)}
    (grey,) = [colour for colour in colours if len(set(colour)) == 1 and colour[0] != 255]
    assert grey[0] == pytest.approx(YELLOW @ [0.299, 0.587, 0.114], abs=1)
    assert tuple(YELLOW.astype(float)) in colours
