"""Named sizes of our network in timm's registry: ``timm.create_model("vit_attn_tiny_patch4_32")``."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from vit_attn.model.vit import VisionTransformer

SMALL_IMAGES = {"input_size": (3, 32, 32), "num_classes": 10, "classifier": "head", "first_conv": "patch_embed.proj"}

default_cfgs = generate_default_cfgs(
    {f"vit_attn_{size}_patch4_32": dict(SMALL_IMAGES) for size in ("tiny", "small", "base")}
)


def _small_images(variant: str, pretrained: bool, embed_dim: int, num_heads: int, **options: Any) -> VisionTransformer:
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": embed_dim,
        "depth": 12,
        "num_heads": num_heads,
    }
    out_indices = options.pop("out_indices", 3)
    return build_model_with_cfg(
        VisionTransformer,
        variant,
        pretrained,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **(sizes | options),
    )


@register_model
def vit_attn_tiny_patch4_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Width 192, depth 12, 3 heads, for 32×32 images."""
    return _small_images("vit_attn_tiny_patch4_32", pretrained, **({"embed_dim": 192, "num_heads": 3} | options))


@register_model
def vit_attn_small_patch4_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Width 384, depth 12, 6 heads, for 32×32 images."""
    return _small_images("vit_attn_small_patch4_32", pretrained, **({"embed_dim": 384, "num_heads": 6} | options))


@register_model
def vit_attn_base_patch4_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Width 768, depth 12, 12 heads, for 32×32 images."""
    return _small_images("vit_attn_base_patch4_32", pretrained, **({"embed_dim": 768, "num_heads": 12} | options))
