import timm
import torch
from torch import nn

from vit_attn.attention_maps.layout import layout_of
from vit_attn.attention_maps.tokens import find_token, prefix_names, token_name


def names(arch: str, **options) -> list[str]:
    net = timm.create_model(arch, **options)
    return prefix_names(net, net.num_prefix_tokens)


def test_tokens_before_the_patches_have_the_names_of_what_they_are():
    small = {"embed_dim": 12, "depth": 1, "num_heads": 1}
    assert names("vit_tiny_patch16_224", **small) == ["CLS"]
    assert names("vit_attn_tiny_patch4_32", **small, reg_tokens=2) == ["CLS", "R1", "R2"]
    assert names("vit_medium_patch16_reg4_gap_256", **small) == ["R1", "R2", "R3", "R4"]
    assert names("deit_tiny_distilled_patch16_224", **small) == ["CLS", "DIST"]
    assert prefix_names(nn.Identity(), 1) == ["CLS"]  # torchvision's and Hugging Face's


def test_every_token_is_found_by_its_name():
    net = timm.create_model("vit_attn_tiny_patch4_32", embed_dim=12, depth=1, num_heads=1, reg_tokens=2)
    layout, prefix = layout_of(net, torch.zeros(1, 3, 32, 32)), prefix_names(net, 3)
    for token in range(3 + 64):
        name = token_name(token, layout, prefix)
        text = name.removeprefix("row ").replace(" column ", "")
        assert find_token(text, layout, prefix) == token
