"""Token layout and pooling of Hugging Face's vision transformers, by class."""

from typing import Any

from vit_attn.errors import UserError

PREFIX_TOKENS = {"deit": 2, "ijepa": 0, "siglip": 0, "siglip_vision_model": 0, "aimv2_vision_model": 0}
"""Number of tokens before the patches, by ``model_type``, where they are not CLS and registers."""

POOLS = {
    "ViTForImageClassification": "token",
    "ViTModel": "pooler",
    "ViTMSNForImageClassification": "token",
    "DeiTForImageClassification": "token",
    "DeiTForImageClassificationWithTeacher": "prefix",
    "DeiTModel": "pooler",
    "BeitForImageClassification": "mean or token",
    "BeitModel": "pooler",
    "Data2VecVisionForImageClassification": "mean or token",
    "Data2VecVisionModel": "pooler",
    "Dinov2ForImageClassification": "token+avg",
    "Dinov2Model": "token",
    "Dinov2WithRegistersForImageClassification": "token+avg",
    "Dinov2WithRegistersModel": "token",
    "DINOv3ViTModel": "token",
    "CLIPForImageClassification": "avg",
    "CLIPVisionModel": "token",
    "CLIPVisionModelWithProjection": "token",
    "MetaClip2ForImageClassification": "avg",
    "MetaClip2VisionModel": "token",
    "MetaClip2VisionModelWithProjection": "token",
    "MLCDVisionModel": "token",
    "IJepaForImageClassification": "avg",
    "SiglipForImageClassification": "avg",
    "PixioModel": "prefix",
    "Tipsv2VisionModel": "token",
    "DPTModel": "pooler",
    "SiglipVisionModel": "pooler by attention",
    "Aimv2VisionModel": "pooler by attention",
}
"""Pooling by class: a ``global_pool`` of ``Recording``, or a note that the class's own pooler decides."""


def hugging_face_layout(net: Any, size: tuple[int, int]) -> tuple[int, tuple[int, int], str, bool, tuple[int, int]]:
    """Get the first five fields of ``TokenLayout`` for images of this height and width."""
    config = net.config if hasattr(net.config, "patch_size") else getattr(net.config, "vision_config", net.config)
    patch = config.patch_size
    rows, cols = (patch, patch) if isinstance(patch, int) else patch
    registers = getattr(config, "num_register_tokens", 0) or 0
    cls_tokens = getattr(config, "n_cls_tokens", 1)
    prefix = PREFIX_TOKENS.get(config.model_type, cls_tokens + registers)
    return prefix, (size[0] // rows, size[1] // cols), _global_pool(net), False, (rows, cols)


def check_token_grid(net: Any) -> None:
    """Refuse a class whose tokens are not the patches of one image in the order of the grid, whatever their number.

    Raises:
        UserError: If the network is of such a class.
    """
    name, kind = type(net).__name__, getattr(getattr(net, "config", None), "model_type", "")
    if kind == "vit_mae":
        raise UserError(f"{name} shuffles its patches, so none has a position: load its encoder as ViTModel")
    if hasattr(net, "text_model") or hasattr(net, "language_model"):
        raise UserError(f"{name} is a network of images and of text: record its vision model alone")
    if kind and hasattr(net.config, "num_frames"):
        raise UserError(f"{name} takes videos: its tokens are no grid of patches")
    if kind and hasattr(net.config, "num_detection_tokens"):
        raise UserError(f"{name} has tokens of detection after its patches: they are no grid of patches")


def _global_pool(net: Any) -> str:
    """Get the pooling by the class of the network or a base of it; "" where it is not known."""
    known = next((POOLS[base.__name__] for base in type(net).__mro__ if base.__name__ in POOLS), "")
    if known == "pooler by attention":
        return "map" if net.use_head and _is_library_pooler(net.head, "PoolingHead") else ""
    if known in ("pooler", "mean or token"):
        pooler = next((module.pooler for module in net.modules() if hasattr(module, "pooler")), None)
        if pooler is None or not _is_library_pooler(pooler, "Pooler"):
            return ""
        return "token" if getattr(pooler, "layernorm", None) is None else "avg"  # whatever its config says by now
    return known


def _is_library_pooler(module: Any, suffix: str) -> bool:
    """Tell whether a pooler is an unchanged one of the library, of a class whose name ends so."""
    from_library = type(module).__module__.startswith("transformers.")
    return from_library and type(module).__name__.endswith(suffix) and "forward" not in vars(module)
