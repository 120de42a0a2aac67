"""Tests that timm runs on every model of its registry, run on ours."""

import json
import subprocess
import sys

import pytest
import timm
import torch

from vit_attn.model.scores import AFFINITIES
from vit_attn.model.zoo import ENTRIES

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
EACH = pytest.mark.parametrize("name", ENTRIES)
FORMS = {
    "default": {},
    "pool by attention": {"global_pool": "map"},
    "rope": {"pos_embed": "rope"},
    "additive, top 3": {"affinity": "additive", "normaliser": "top_k", "top_k": 3},
    "conv": {"stem": "conv"},
} | {f"{affinity}, window": {"affinity": affinity, "window": 3} for affinity in AFFINITIES}
EACH_FORM = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())


def images_of(net: torch.nn.Module) -> torch.Tensor:
    return torch.randn(2, 3, *net.patch_embed.img_size)


@EACH
def test_a_forward_and_a_backward_pass_are_finite_and_reach_every_parameter(name: str):
    net = timm.create_model(name, **SMALL, img_size=8 * ENTRIES[name].options["patch_size"], num_classes=5).train()
    logits = net(images_of(net))
    assert logits.shape == (2, 5)
    logits.mean().backward()
    assert logits.isfinite().all()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []


@EACH
def test_the_head_and_the_first_layer_are_where_the_configuration_says(name: str):
    net = timm.create_model(name, **SMALL, img_size=8 * ENTRIES[name].options["patch_size"])
    cfg, state, images = net.default_cfg, net.state_dict(), images_of(net)
    assert cfg["classifier"] + ".weight" in state or net.num_classes == 0
    assert cfg["first_conv"] + ".weight" in state
    assert net.forward_head(net.forward_features(images), pre_logits=True).shape == (2, net.num_features)
    net.reset_classifier(0)
    assert net(images).shape == (2, net.num_features)
    net.reset_classifier(0, "")
    tokens = net(images)
    assert tokens.shape == (2, 64 + net.num_prefix_tokens, net.num_features)
    again = timm.create_model(name, **SMALL, img_size=8 * ENTRIES[name].options["patch_size"], num_classes=0)
    assert not any(key.startswith("head.") for key in again.state_dict())


@EACH_FORM
def test_each_form_gives_features_of_its_blocks(options):
    net = timm.create_model("vit_attn_tiny_patch4_32", **SMALL, **options, features_only=True, out_indices=(0, 1))
    assert [tuple(each.shape) for each in net(torch.randn(2, 3, 32, 32))] == [(2, 48, 8, 8)] * 2
    assert net.feature_info.reduction() == [4, 4]


WITHOUT_CHECKS = """
import json, sys, timm, torch
import vit_attn.model
from timm.models._features_fx import create_feature_extractor

small, forms = json.loads(sys.argv[1])
for name, options in forms.items():
    torch.compiler.reset()
    net = timm.create_model("vit_attn_tiny_patch4_32", **small, **options).eval()
    images = torch.randn(2, 3, 32, 32)
    ways = {
        "export": torch.export.export(net, (images,)).module(),
        "compile": torch.compile(net, fullgraph=True, backend="eager"),
    }
    if options.get("normaliser") != "top_k":  # how many keys there are decides, which fx does not know
        ways["fx"] = lambda x: create_feature_extractor(net, {"head": "out"})(x)["out"]
    for way, other in ways.items():
        torch.testing.assert_close(other(images), net(images), msg=lambda text: f"{name}, {way}: {text}")
    print(name)
"""


@pytest.mark.slow
def test_each_form_is_exported_compiled_and_traced_by_fx():
    """In another process, since the shape checks of the tests are more than tracers bear."""
    forms = FORMS | {"hard": {"normaliser": "hard"}}
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_CHECKS, json.dumps([SMALL, forms])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("\n")[:-1] == list(forms)
