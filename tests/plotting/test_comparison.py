import numpy as np
import pytest

from vit_attn.errors import UserError
from vit_attn.plotting.canvas import Canvas
from vit_attn.plotting.comparison import draw_heads, draw_side_by_side
from vit_attn.plotting.overlay import AttentionMap
from vit_attn.plotting.scale import Scale


def test_networks_share_one_scale_and_each_patch_has_its_colour():
    grey, weak, strong = np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2)), np.zeros((2, 2))
    weak[0, 1], strong[1, 0] = 0.25, 0.5
    picture = draw_side_by_side(
        grey, "cat", {"source": [AttentionMap("rollout", weak)], "tuned": [AttentionMap("rollout", strong)]}
    )
    scale = Scale(50.0, opacity=0.6)
    colours = scale.over(np.zeros((1, 2, 1)), np.array([[25.0, 50.0]]))[0]
    rows = [np.flatnonzero((picture == colour).all(axis=2).any(axis=1)) for colour in colours]
    assert min(len(each) for each in rows) >= 50  # half of a panel
    assert rows[0].min() < rows[1].min()  # the source's row is above


def test_heads_have_the_colour_of_their_number_whichever_side_is_longer():
    values = np.array([[0.0, 0.1], [0.2, 0.4], [0.3, 0.05]])
    for each in (values, values.T):
        picture = draw_heads(each, "divergence", "nats")
        for colour in Scale(0.4).colours(each).reshape(-1, 3):
            assert (picture == colour).all(axis=2).sum() > 500


def test_what_is_next_to_nothing_is_not_drawn_as_much():
    picture = draw_heads(np.array([[0.0, 1e-6]]), "divergence", "nats")
    (nothing,) = Scale(1.0).colours(np.zeros((1, 1)))
    assert (picture == nothing).all(axis=2).sum() > 5000


def test_no_difference_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(Canvas, "write", lambda self, text, *_, **__: said.append(text))
    draw_heads(np.full((2, 2), 0.004), "divergence", "nats")
    draw_heads(np.full((2, 2), 0.006), "divergence", "nats")
    assert [text for text in said if text.startswith("divergence")] == ["divergence: no difference", "divergence"]


@pytest.mark.parametrize(
    "other", [[AttentionMap("rollout", np.ones((4, 1)))], [AttentionMap("last layer", np.ones((2, 2)))], []]
)
def test_maps_of_other_patches_are_not_drawn_side_by_side(other):
    grey, maps = np.zeros((8, 8, 3), np.uint8), [AttentionMap("rollout", np.ones((2, 2)))]
    with pytest.raises(UserError, match="maps of the same patches are drawn side by side"):
        draw_side_by_side(grey, "cat", {"source": maps, "tuned": other})


def test_many_heads_have_no_numbers_and_fit_the_page():
    assert draw_heads(np.zeros((32, 16)), "divergence", "nats").shape[:2] < (2048, 701)
    assert draw_heads(np.zeros((12, 12)), "divergence", "nats").shape[:2] < (2048, 701)
