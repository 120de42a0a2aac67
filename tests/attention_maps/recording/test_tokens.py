import timm
import torch
import torchvision
import transformers
from torch import nn

from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.tokens import find_token, prefix_names, token_name


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


def test_tokens_of_embeddings_have_the_names_of_what_they_are():
    small = {"embed_dim": 48, "depth": 1, "num_heads": 2}
    assert names("naflexvit_base_patch16_gap", **small) == ["R1", "R2", "R3", "R4"]
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    size = {"image_size": 32, "patch_size": 8}
    deit = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**config, **size))
    assert prefix_names(deit, 2) == ["CLS", "DIST"]
    dino = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**config, **size, num_register_tokens=2))
    assert prefix_names(dino, 3) == ["CLS", "R1", "R2"]
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**config, **size))
    assert prefix_names(clip, 1) == ["CLS"]
    assert prefix_names(torchvision.models.VisionTransformer(32, 8, 1, 2, 32, 64), 1) == ["CLS"]


def test_several_cls_tokens_are_no_registers():
    net = nn.Module()
    net.embeddings = nn.Module()
    net.embeddings.cls_token = nn.Parameter(torch.zeros(1, 2, 8))
    assert prefix_names(net, 2) == ["CLS1", "CLS2"]


def test_every_token_is_found_by_its_name():
    net = timm.create_model("vit_attn_tiny_patch4_32", embed_dim=12, depth=1, num_heads=1, reg_tokens=2)
    layout, prefix = token_layout(net, torch.zeros(1, 3, 32, 32)), prefix_names(net, 3)
    for token in range(3 + 64):
        name = token_name(token, layout, prefix)
        text = name.removeprefix("row ").replace(" column ", "")
        assert find_token(text, layout, prefix) == token
