"""Our networks in timm's registry: ``timm.create_model("vit_attn_small_patch16_224", pretrained=True)``.

Two tiny networks come with trained weights in the package, for ``pretrained=True`` without a network. Other sizes for
small images have none. The rest have the shape of a timm model, whose weights ``pretrained=True`` loads from the hub
into our blocks; positions and patches are resampled to another image size, patch size or number of channels.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import timm
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from vit_attn.model.vit import VisionTransformer

TINY = {"embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"embed_dim": 384, "depth": 12, "num_heads": 6}
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
PATCH_4 = {"img_size": 32, "patch_size": 4}
PATCH_16 = {"img_size": 224, "patch_size": 16}
DEIT3 = {**PATCH_16, "no_embed_class": True, "init_values": 1e-6}
DINOV2 = {"img_size": 518, "patch_size": 14, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}


@dataclass(frozen=True)
class Entry:
    """Registered network: its arguments of ``VisionTransformer``, and weights that fit it."""

    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    """Name of timm's weights."""
    shipped: str | None = None
    """File of weights in the package; its header records how they were trained."""


TRAINED = Path(__file__).parent / "trained"
COINS = {**PATCH_4, "num_classes": 10, "embed_dim": 64, "depth": 3, "num_heads": 4, "mlp_ratio": 2.0}
CIFAR10 = {**COINS, "depth": 4, "num_heads": 2, "class_token": False, "global_pool": "avg"}

ENTRIES = {
    "vit_attn_coins_patch4_32": Entry(COINS, shipped="coins.safetensors"),
    "vit_attn_cifar10_patch4_32": Entry(CIFAR10, shipped="cifar10.safetensors"),
    "vit_attn_tiny_patch4_32": Entry(TINY | PATCH_4),
    "vit_attn_small_patch4_32": Entry(SMALL | PATCH_4),
    "vit_attn_base_patch4_32": Entry(BASE | PATCH_4),
    "vit_attn_tiny_patch16_224": Entry(TINY | PATCH_16, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
    "vit_attn_small_patch16_224": Entry(SMALL | PATCH_16, "vit_small_patch16_224.augreg_in21k_ft_in1k"),
    "vit_attn_base_patch16_224": Entry(BASE | PATCH_16, "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    "vit_attn_deit_tiny_patch16_224": Entry(TINY | PATCH_16, "deit_tiny_patch16_224.fb_in1k"),
    "vit_attn_deit_small_patch16_224": Entry(SMALL | PATCH_16, "deit_small_patch16_224.fb_in1k"),
    "vit_attn_deit_base_patch16_224": Entry(BASE | PATCH_16, "deit_base_patch16_224.fb_in1k"),
    "vit_attn_deit3_small_patch16_224": Entry(SMALL | DEIT3, "deit3_small_patch16_224.fb_in22k_ft_in1k"),
    "vit_attn_deit3_base_patch16_224": Entry(BASE | DEIT3, "deit3_base_patch16_224.fb_in22k_ft_in1k"),
    "vit_attn_dino_small_patch16_224": Entry(SMALL | PATCH_16, "vit_small_patch16_224.dino"),
    "vit_attn_dino_base_patch16_224": Entry(BASE | PATCH_16, "vit_base_patch16_224.dino"),
    "vit_attn_dinov2_small_patch14_reg4": Entry(SMALL | DINOV2, "vit_small_patch14_reg4_dinov2.lvd142m"),
    "vit_attn_dinov2_base_patch14_reg4": Entry(BASE | DINOV2, "vit_base_patch14_reg4_dinov2.lvd142m"),
}


def _pretrained_cfg(entry: Entry) -> PretrainedCfg | dict[str, Any]:
    """Make timm's record of the weights: file, classes, and normalisation of the images."""
    if entry.weights:
        return timm.get_pretrained_cfg(entry.weights) or {}
    cfg = {"input_size": (3, 32, 32), "num_classes": 10, "classifier": "head", "first_conv": "patch_embed.proj"}
    if entry.shipped is None:
        return cfg
    with safetensors.safe_open(TRAINED / entry.shipped, "pt") as file:
        header = {name: json.loads(text) for name, text in file.metadata().items()}
    return cfg | {
        "file": str(TRAINED / entry.shipped),
        "mean": tuple(header["mean"]),
        "std": tuple(header["std"]),
        "label_names": header["class_names"],
        "crop_pct": 1.0,
        "notes": (f"{header['command']}; commit {header['commit']}; {header['measured']}",),
    }


default_cfgs = generate_default_cfgs({name: _pretrained_cfg(entry) for name, entry in ENTRIES.items()})


def _register(name: str, entry: Entry) -> None:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        out_indices = options.pop("out_indices", 3)
        return build_model_with_cfg(
            VisionTransformer,
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **(entry.options | options),
        )

    create.__name__ = name
    create.__doc__ = f"Our blocks in the shape of timm's {entry.weights}." if entry.weights else "For small images."
    register_model(create)


for _name, _entry in ENTRIES.items():
    _register(_name, _entry)
