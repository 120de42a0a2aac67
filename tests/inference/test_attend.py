"""``attend`` draws what the registry of attribution methods marks as drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vit_attn.attention_maps.methods import registry
from vit_attn.attention_maps.methods.registry import AttributionInput, attribution_method
from vit_attn.attention_maps.methods.rollout import raw_rows
from vit_attn.data.images.fits import seen_as_is
from vit_attn.inference import attend as module
from vit_attn.inference.attend import MapSettings, attend, save_attention
from vit_attn.inference.network import TrainedNetwork, open_network


@pytest.fixture(scope="module")
def network() -> TrainedNetwork:
    return open_network("vit_attn_coins_patch4_32")


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class-agnostic method with queries, a class-specific one without, and one for no network."""
    registry.attribution_methods()
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    own = {"reference": "own idea", "needs_gradients": False, "drawn": True}

    @attribution_method("image", label="first layer", class_specific=False, **own)
    def first_layer(inputs: AttributionInput, queries):
        return raw_rows(inputs.recording, 0, queries)

    @attribution_method("class_one_hot", label="target", class_specific=True, has_query=False, **own)
    def one_hot(inputs: AttributionInput, queries):
        return torch.eye(inputs.recording.num_tokens)[1 + inputs.target, None]

    @attribution_method("never", label="never", class_specific=False, supports=lambda net: False, **own)
    def never(inputs: AttributionInput, queries):
        raise AssertionError


IMAGE = seen_as_is(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def test_drawn_methods_of_ones_own_are_in_the_figure_and_in_the_numbers(
    own_methods: None, network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn, draw = [], module.draw_overlays
    monkeypatch.setattr(module, "draw_overlays", lambda *args, **kw: drawn.extend(args[2]) or draw(*args, **kw))
    (attention,) = attend([IMAGE], network, MapSettings(target=4))
    assert [method.name for method in attention.rows] == [
        *("relevance", "class_one_hot", "last_layer", "rollout", "image"),
    ]
    save_attention(tmp_path / "a", tmp_path / "a.png", IMAGE, attention, network)
    assert [each.title for each in drawn] == ["relevance", "target", "last layer", "rollout", "first layer"]
    assert [each.note for each in drawn] == [f"for {network.class_name(4)}"] * 2 + [""] * 3
    with np.load(tmp_path / "a.attention.npz") as numbers:
        assert (numbers["image"] == IMAGE.pixels).all()
        assert numbers["rows_class_one_hot"].argmax() == 5
        np.testing.assert_allclose(numbers["rows_image"].sum(), 1, rtol=1e-5)
        assert "rows_rollout" not in numbers


def test_of_a_query_only_methods_that_have_queries_are_drawn(own_methods: None, network: TrainedNetwork):
    (attention,) = attend([IMAGE], network, MapSettings(query="2,3"))
    assert [method.name for method in attention.rows] == ["relevance", "last_layer", "rollout", "image"]
    (other,) = attend([IMAGE], network, MapSettings(query="3,3"))
    for method, row in attention.rows.items():
        assert not np.allclose(row, other.rows[method], rtol=1e-3)
