import matplotlib.colors
import numpy as np
import torch

from vit_attn.attention_maps import attribution_methods
from vit_attn.plotting.curves import PALETTE, draw_curves, line_styles

CURVES = (torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9]))


def test_every_method_and_baseline_has_a_line_of_its_own():
    styles = line_styles()
    assert list(styles) == [*(method.label for method in attribution_methods().values()), "random", "centre first"]
    assert len(set(styles.values())) == len(styles)


def test_known_methods_keep_their_lines():
    known = {
        "last layer": ("#000000", "-"),
        "rollout, mean": ("#0072b2", "-"),
        "rollout, max": ("#0072b2", "--"),
        "rollout, min": ("#0072b2", ":"),
        "rollout, discard 0.5": ("#56b4e9", "-"),
        "gradient rollout": ("#e69f00", "-"),
        "relevance": ("#d55e00", "--"),
        "LeGrad": ("#cc79a7", "-"),
        "random": ("#999999", "-"),
        "centre first": ("#999999", "--"),
    }
    styles = line_styles()
    assert {label: styles[label] for label in known} == known


def test_a_curve_is_drawn_in_the_colour_of_its_method():
    for method in attribution_methods().values():
        picture = draw_curves({method.label: CURVES}, "a title")
        assert picture.dtype == np.uint8
        found = np.round(255 * np.array(matplotlib.colors.to_rgb(line_styles()[method.label][0])))
        assert ((picture == found).all(axis=-1)).sum() > 100
    other = draw_curves({"another": CURVES}, "a title")
    assert ((other == np.round(255 * np.array(matplotlib.colors.to_rgb(PALETTE[6])))).all(axis=-1)).sum() > 100
