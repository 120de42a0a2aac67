import numpy as np
import pytest

from vit_attn.plotting.overlay import AttentionMap, Mark, draw_matrices, draw_overlays
from vit_attn.plotting.panels import place_legend

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
YELLOW = np.array([253, 231, 37])  # the top of viridis


def one_patch(row: int, col: int) -> np.ndarray:
    patches = np.full((4, 6), 0.01)
    patches[row, col] = 0.77
    return patches


def yellow(picture: np.ndarray) -> np.ndarray:
    """Where a picture is closest to the top of the colours, as the mean (x, y) of the strongest hundredth."""
    distance = np.abs(picture.astype(float) - YELLOW).sum(axis=-1)
    distance[:, -124:] = 1e9  # the colour bar
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
    assert draw_overlays(IMAGE, "cat", maps[:1]).shape[1] < plain.shape[1]


def test_maps_beside_each_other_share_one_scale():
    """Half the attention must not look like all of it."""
    weak = AttentionMap("weak", one_patch(1, 1) / 2)
    alone = draw_overlays(IMAGE, "cat", [weak], dpi=200)
    beside = draw_overlays(IMAGE, "cat", [weak, AttentionMap("strong", one_patch(1, 1))], dpi=200)
    x = slice(260, 470)  # within the weak map's panel
    assert not np.array_equal(alone[80:220, x], beside[80:220, x])


def test_every_layer_has_its_matrix():
    layers = np.random.default_rng(0).dirichlet(np.ones(9), (6, 9))
    picture = draw_matrices(layers, 1, "cat")
    assert picture.dtype == np.uint8
    assert draw_matrices(layers[:3], 1, "cat").shape[0] < picture.shape[0]
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
        ys, xs = np.nonzero((picture != plain).any(axis=-1)[:200, :230])  # of the image alone, above the legend
        return np.array([np.ptp(ys), np.ptp(xs)])

    line = 6
    assert (np.abs(outlined(block) - outlined(one) * np.array([2, 3])) <= 2 * line).all()


@pytest.mark.parametrize("dpi", [100, 180])
@pytest.mark.parametrize(
    "names", [["bought", "buyer"], ["object", "left wing", "right wing", "a", "b"], ["x" * 60, "y"]]
)
def test_a_legend_stays_below_its_image(names: list[str], dpi: int):
    maps, marks = (
        [AttentionMap("rollout", one_patch(1, 1), note="for cat")],
        [Mark(name, 7, "dotted") for name in names],
    )
    plain, marked = draw_overlays(IMAGE, "cat", maps, dpi=dpi), draw_overlays(IMAGE, "cat", maps, marks, dpi=dpi)
    foot, panel = round((0.36 + 1.15 * 2 / 3 + 0.02) * dpi), round((0.04 + 1.15 + 0.06) * dpi)
    added = marked[foot:, panel : -round(0.6 * dpi)]
    assert np.array_equal(added[: len(plain) - foot], plain[foot:, panel : -round(0.6 * dpi)])
    assert (added[len(plain) - foot :] == 255).all()
    assert (marked[-2:] == 255).all()


def test_every_name_is_in_the_legend_once_and_two_short_ones_share_a_line():
    entries = place_legend(["bought", "buyer", "any coin", "hand"], 1.19, 100)
    assert [(entry.name, entry.left, entry.top) for entry in entries] == [
        *(("bought", 0.05, 0.0), ("buyer", 0.65, 0.0)),
        *(("any coin", 0.05, 0.15), ("hand", 0.05, 0.3)),
    ]
    assert draw_overlays(IMAGE, "cat", [AttentionMap("a", one_patch(0, 0))], [Mark("a", 1), Mark("a", 9)]).shape == (
        draw_overlays(IMAGE, "cat", [AttentionMap("a", one_patch(0, 0))]).shape
    )
