import base64
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.attention_maps.summary import AttentionSummary, summarize
from vit_attn.attention_maps.summary_html import Panel, panels_html
from vit_attn.model import VisionTransformer


@pytest.fixture(scope="module")
def summary() -> AttentionSummary:
    net = VisionTransformer(img_size=(16, 24), patch_size=8, num_classes=5, embed_dim=48, depth=3, num_heads=4).eval()
    (found,) = summarize(net, torch.randn(1, 3, 16, 24), target=2)
    return found


def text_of(markup: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", markup)))


def pictures_of(markup: str) -> list[np.ndarray]:
    """Pixels of the maps, (rows, cols, 3)."""
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', markup)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found]


def test_a_summary_is_three_maps_with_their_scales_and_the_prediction(summary: AttentionSummary):
    shown = summary._repr_html_()
    text, best = text_of(shown), summary.predicted
    assert f"Predicted: class {best}, probability {summary.probabilities[best]:.3f}." in text
    assert f"for class 2, probability {summary.probabilities[2]:.3f}" in text
    assert re.search(rf"rollout .* {summary.rollout[:1].sum():.1%} on prefix tokens", text)
    high = max(float(summary.patches(summary.rollout).max()), 4 / 7)
    assert f" 0 {high:.3g} " in text
    assert f" 0 {summary.patches(summary.relevance).max():.3g} " in text
    assert [picture.shape for picture in pictures_of(shown)] == [(2, 3, 3)] * 3
    assert len(shown) < 8000
    assert not re.search(r"<script|on\w+=|https?:", shown)


def test_the_largest_value_is_yellow_and_zero_is_dark():
    (picture,) = pictures_of(panels_html("", [Panel("map", np.array([[0.0, 0.5], [1.0, 0.25]]))]))
    assert picture[0, 0].tolist() == [0x44, 0x01, 0x54]
    assert picture[1, 0].tolist() == [0xFD, 0xE7, 0x25]
    brightness = picture.astype(int).sum(axis=-1)
    assert brightness[0, 0] < brightness[1, 1] < brightness[0, 1] < brightness[1, 0]


def test_uniform_attention_is_dark_and_a_map_of_zeros_has_a_scale(summary: AttentionSummary):
    uniform = replace(summary, rollout=np.full(7, 1 / 7, np.float32), relevance=np.zeros(7, np.float32))
    _, rollout, relevance = pictures_of(uniform._repr_html_())
    assert rollout.max() < 160
    assert (relevance == relevance[0, 0]).all()


def test_what_a_caller_writes_is_escaped():
    shown = panels_html("<b>&", [Panel('"><script>', np.ones((1, 1)), "<i>")])
    assert not re.search(r"<script|<i>", shown)
    assert "<p>&lt;b&gt;&amp;</p>" in shown


def test_a_relevance_of_a_function_and_a_pool_are_named(summary: AttentionSummary):
    shown = text_of(replace(summary, target=-1, pool=True, query=-1, num_prefix_tokens=1)._repr_html_())
    assert "for a function" in shown
    assert " pool " in shown


def test_the_text_of_a_summary_is_one_line(summary: AttentionSummary):
    assert "\n" not in repr(summary)
    assert f"predicted={summary.predicted}" in repr(summary)
    assert "3 layers, 4 heads, 7 tokens" in repr(summary)
