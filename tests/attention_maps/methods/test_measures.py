import math

import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import record
from vit_attn.attention_maps.methods.measures import (
    MEASURES,
    attention_distance,
    divergence,
    entropy,
    measure,
    position_similarity,
    prefix_mass,
    sink_mass,
)
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": (16, 24), "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}


def uniform(prefix: int = 1) -> torch.Tensor:
    return torch.full((1, 2, 6 + prefix, 6 + prefix), 1 / (6 + prefix))


def test_each_measure_by_hand():
    """Two heads on a 2×3 grid behind one prefix token: one looks everywhere, one at the next patch to the right."""
    weights = uniform()
    weights[0, 1] = 0.0
    for token in range(7):
        weights[0, 1, token, 1 + token % 6] = 1.0  # token 1 is patch 0: it looks at patch 1
    assert_close(entropy(weights), torch.tensor([[math.log(7), 0.0]]))
    assert_close(entropy(weights, normalised=True), torch.tensor([[1.0, 0.0]]))
    around = [0, 8, 16, 10, math.hypot(10, 8), math.hypot(10, 16)]  # from a corner: patches of 10×8 pixels
    middle = [8, 0, 8, math.hypot(10, 8), 10, math.hypot(10, 8)]
    everywhere = (4 * sum(around) + 2 * sum(middle)) / 36
    right = (8 + 8 + math.hypot(10, 16) + 8 + 8 + math.hypot(10, 16)) / 6  # the last looks at the first
    assert_close(attention_distance(weights, (2, 3), (10.0, 8.0)), torch.tensor([[everywhere, right]]))
    assert_close(sink_mass(weights), torch.tensor([[1 / 7, 2 / 7]]))
    assert_close(prefix_mass(weights, 1), torch.tensor([[1 / 7, 0.0]]))


def test_a_head_that_looks_at_prefix_tokens_only_has_no_distance_and_is_no_nan():
    weights = torch.zeros(1, 1, 7, 7)
    weights[..., 0] = 1.0
    assert attention_distance(weights, (2, 3), 8.0).item() == 0.0
    assert sink_mass(weights).item() == 1.0
    assert prefix_mass(weights, 1).item() == 1.0


def recorded(net: VisionTransformer, images: torch.Tensor):
    with torch.no_grad(), record(net.eval()) as recording:
        net(images)
    return recording


def test_a_network_is_measured_by_layer_and_head():
    recording = recorded(VisionTransformer(**SIZES), torch.randn(5, 3, 16, 24))
    found = measure(recording, 8.0)
    assert set(found) == set(MEASURES)
    assert all(values.shape == (3, 4) for values in found.values())
    assert_close(found["entropy"][1], entropy(recording[1].weights()).mean(dim=0))
    assert_close(found["distance"][2], attention_distance(recording[2].weights(), (2, 3), 8.0).mean(dim=0))


def test_divergence_is_zero_between_equals_and_grows_to_ln_2():
    net, images = VisionTransformer(**SIZES), torch.randn(3, 3, 16, 24)
    one = recorded(net, images)
    assert divergence(one, recorded(net, images)).max() < 1e-6
    with torch.no_grad():
        net.blocks[1].attn.qkv.weight.mul_(30)
    other = divergence(one, recorded(net, images))
    assert other[0].max() < 1e-6  # the first layer is as it was
    assert other[1].min() > 0.05
    assert other.max() <= math.log(2)
    with pytest.raises(UserError, match=r"got \(3, 3, 1, 2, 3\) and \(3, 2, 1, 2, 3\)"):
        divergence(one, recorded(net, images[:2]))
    turned = VisionTransformer(**SIZES | {"img_size": (24, 16)})  # as many tokens, which are other patches
    with pytest.raises(UserError, match=r"got \(3, 3, 1, 2, 3\) and \(3, 3, 1, 3, 2\)"):
        divergence(one, recorded(turned, images.mT))


def test_positions_are_most_similar_to_themselves():
    net = VisionTransformer(**SIZES, pos_embed="sincos")
    similarity = position_similarity(net)
    assert_close(similarity.diagonal(), torch.ones(6))
    assert similarity[0, 1] > similarity[0, 2] > -1
    with pytest.raises(UserError, match="adds no position embeddings"):
        position_similarity(VisionTransformer(**SIZES, pos_embed="rope"))
