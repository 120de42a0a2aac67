import dataclasses

import pytest
import timm
import torch
from torch.testing import assert_close

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.errors import UserError
from vit_attn.inference.any_size import Patches, find_any_size_patches
from vit_attn.inference.network import TrainedNetwork, network_for_fit, open_network
from vit_attn.model import VisionTransformer

SMALL = {"depth": 1, "embed_dim": 32, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vit_attn_tiny_patch4_32", {}, None),
        ("vit_attn_tiny_patch4_32", {"dynamic_img_size": True}, Patches((4, 4), 64)),
        ("vit_attn_tiny_patch4_32", {"dynamic_img_size": True, "stem": "conv"}, Patches((4, 4), 64)),
        ("vit_attn_tiny_patch4_32", {"dynamic_img_size": True, "pos_embed": "rope"}, Patches((4, 4), 64)),
        ("vit_attn_tiny_patch4_32", {"dynamic_img_size": True, "window": 3}, None),  # no grid smaller than the window
        ("vit_tiny_patch16_224", {}, None),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, Patches((16, 16), 196)),
        ("vit_small_patch16_dinov3", {}, Patches((16, 16), 256)),
        ("eva02_tiny_patch14_224", {}, None),
        ("naflexvit_base_patch16_gap", {}, Patches((16, 16), 196)),
        ("beit_base_patch16_224", {}, None),
        ("resnet18", {"num_classes": 5}, None),
    ],
)
def test_networks_of_any_size_are_found_by_trying(name: str, options: dict, expected: Patches | None):
    sizes = {} if name == "resnet18" else SMALL
    net = timm.create_model(name, **(sizes | options)).eval()
    size = 32 if "patch4" in name else 256 if "dinov3" in name else 224
    assert find_any_size_patches(net, 3, (size, size)) == expected


def test_a_network_of_the_size_that_is_tried_is_still_of_one_size():
    for size in ((4, 12), (4, 8)):
        net = VisionTransformer(size, 4, **SMALL).eval()
        assert find_any_size_patches(net, 3, size) is None


def test_trying_leaves_nothing_behind():
    net = timm.create_model("vit_small_patch16_dinov3", **SMALL).eval()
    before, random = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    assert find_any_size_patches(net, 3, (256, 256))
    assert torch.equal(random, torch.get_rng_state())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    net(torch.zeros(1, 3, 32, 48)).sum().backward()  # no inference tensors are kept


def network(net: torch.nn.Module, name: str, options: dict, size: int) -> TrainedNetwork:
    card = ModelCard(name, options, None, (3, size, size), (0.5,) * 3, (0.5,) * 3)
    return TrainedNetwork(net.eval(), card)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("vit_attn_tiny_patch4_32", 32, {"dynamic_img_size": False}),
        ("vit_tiny_patch16_224", 224, {}),
        ("deit_tiny_distilled_patch16_224", 224, {}),
        ("eva02_tiny_patch14_224", 224, {}),
    ],
)
def test_a_rebuilt_network_takes_any_size_and_is_the_same_at_its_own(name, size, options, capsys):
    options = {**SMALL, **options}
    given = network(timm.create_model(name, **options), name, options, size)
    rebuilt = network_for_fit(given, "whole")
    assert rebuilt.any_size_patches
    assert "position embeddings are resampled" in capsys.readouterr().out
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert_close(rebuilt.net(images), given.net(images), rtol=1e-5, atol=1e-5)
    assert not rebuilt.net.training


def test_a_network_is_rebuilt_for_whole_pictures_only(capsys):
    fixed = open_network("vit_attn_coins_patch4_32")
    assert all(network_for_fit(fixed, fit) is fixed for fit in ("auto", "crop", "letterbox"))
    free = dataclasses.replace(fixed, net=VisionTransformer(32, 4, dynamic_img_size=True, **SMALL).eval())
    assert network_for_fit(free, "whole") is free
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet18", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_that_cannot_be_rebuilt_says_what_to_choose(name: str):
    given = network(timm.create_model(name), name, {}, 224)
    with pytest.raises(UserError, match=f"{name} cannot take pictures at their own shape: choose --fit=crop"):
        network_for_fit(given, "whole")
