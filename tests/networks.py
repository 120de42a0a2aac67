"""Small networks of every family that is recorded, whose attention is far from uniform."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionViT
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

from vit_attn.attention_maps import record
from vit_attn.model import VisionTransformer

OURS = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}
HUGGING_FACE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}


def of_timm(name: str, **options) -> Callable[[], nn.Module]:
    sizes = {"depth": 3, "img_size": 32, "patch_size": 8, "num_classes": 5, "embed_dim": 48, "num_heads": 4}
    return lambda: timm.create_model(name, **(sizes | options))


def torchvision_vit() -> nn.Module:
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 64}
    net = TorchvisionViT(**sizes, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    return net


class Direct(nn.Module):
    """Attention of what it is given, without parameters, in a network that says how its tokens are laid out."""

    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    def __init__(self, grid_size: tuple[int, int] = (2, 3)):
        super().__init__()
        self.attn, self.patch_embed = self.Attention(), nn.Identity()
        self.num_prefix_tokens, self.global_pool, self.patch_embed.grid_size = 1, "token", grid_size

    def forward(self, x):
        return self.attn(x)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "ours": lambda: VisionTransformer(**OURS, reg_tokens=2),
    "ours, mean": lambda: VisionTransformer(**OURS, global_pool="avg", class_token=False),
    "ours, pool by attention": lambda: VisionTransformer(**OURS, global_pool="map"),
    "ours, gaussian in a window": lambda: VisionTransformer(**OURS, affinity="gaussian", window=3),
    "ours, additive, top 5": lambda: VisionTransformer(**OURS, affinity="additive", normaliser="top_k", top_k=5),
    "ours, hard": lambda: VisionTransformer(**OURS, normaliser="hard"),
    "timm vit": of_timm("vit_tiny_patch16_224"),
    "timm siglip": of_timm("vit_base_patch16_siglip_224"),
    "timm dinov3": of_timm("vit_small_patch16_dinov3"),
    "torchvision vit": torchvision_vit,
    "hugging face vit": lambda: ViTForImageClassification(ViTConfig(**HUGGING_FACE)),
    "hugging face dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**HUGGING_FACE)),
}
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def built(family: str) -> nn.Module:
    """A network whose attention is not uniform."""
    net = FAMILIES[family]().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if any(part in name for part in ("qkv.weight", "query.weight", "key.weight", "in_proj_w")):
                parameter.mul_(8)
            if "gamma" in name or "lambda1" in name:
                parameter.fill_(1.0)
            elif name.startswith(("head", "classifier")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seen(net: nn.Module) -> tuple[int, int]:
    """Tokens and prefix tokens."""
    with torch.no_grad(), record(net) as recording:
        net(IMAGES)
    return recording.num_tokens, recording.num_prefix_tokens
