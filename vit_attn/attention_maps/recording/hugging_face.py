"""How the tokens of Hugging Face's vision transformers are laid out, and what their heads read, by their classes."""

from typing import Any

from vit_attn.errors import UserError

PREFIX = {"deit": 2, "ijepa": 0, "siglip": 0, "siglip_vision_model": 0, "aimv2_vision_model": 0}
"""Tokens before the patches, by ``model_type``, where they are not CLS and registers."""

READS = {
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
"""What is read, by class: a pool of ``Recording``, or what the class's own pooler reads."""


def hugging_face_layout(net: Any, size: tuple[int, int]) -> tuple[int, tuple[int, int], str, bool, tuple[int, int]]:
    """Prefix tokens, grid, pool, whether the pool includes the prefix, and patch size, for images of this size."""
    config = net.config if hasattr(net.config, "patch_size") else getattr(net.config, "vision_config", net.config)
    patch = config.patch_size
    rows, cols = (patch, patch) if isinstance(patch, int) else patch
    registers = getattr(config, "num_register_tokens", 0) or 0
    cls_tokens = getattr(config, "n_cls_tokens", 1)
    prefix = PREFIX.get(config.model_type, cls_tokens + registers)
    return prefix, (size[0] // rows, size[1] // cols), _read(net), False, (rows, cols)


def refuse_by_name(net: Any) -> None:
    """Refuse a network whose tokens are not the patches of one image in the order of the grid, whatever their number.

    Raises:
        UserError: If it is one.
    """
    name, kind = type(net).__name__, getattr(getattr(net, "config", None), "model_type", "")
    if kind == "vit_mae":
        raise UserError(f"{name} shuffles its patches, so none has a place: load its encoder as ViTModel")
    if hasattr(net, "text_model") or hasattr(net, "language_model"):
        raise UserError(f"{name} is a network of images and of text: record its vision model alone")
    if kind and hasattr(net.config, "num_frames"):
        raise UserError(f"{name} takes videos: its tokens are no grid of patches")
    if kind and hasattr(net.config, "num_detection_tokens"):
        raise UserError(f"{name} has tokens of detection after its patches: they are no grid of patches")


def _read(net: Any) -> str:
    known = next((READS[base.__name__] for base in type(net).__mro__ if base.__name__ in READS), "")
    if known == "pooler by attention":
        return "map" if net.use_head and _is_own(net.head, "PoolingHead") else ""
    if known in ("pooler", "mean or token"):
        pooler = next((module.pooler for module in net.modules() if hasattr(module, "pooler")), None)
        if pooler is None or not _is_own(pooler, "Pooler"):
            return ""
        return "token" if getattr(pooler, "layernorm", None) is None else "avg"  # whatever its config says by now
    return known


def _is_own(module: Any, kind: str) -> bool:
    """Whether a pooler is one of the library's, as it was written."""
    kept = type(module).__module__.startswith("transformers.") and type(module).__name__.endswith(kind)
    return kept and "forward" not in vars(module)
