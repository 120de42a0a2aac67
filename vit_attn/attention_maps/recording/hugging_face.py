"""Token layout and pooling of Hugging Face's vision transformers, by class."""

from typing import Any

from vit_attn.attention_maps.recording.layout import TokenLayout, is_registered
from vit_attn.errors import UserError

PREFIX_TOKENS = {
    "deit": 2,
    "ijepa": 0,
    "siglip": 0,
    "siglip_vision_model": 0,
    "siglip2": 0,
    "siglip2_vision_model": 0,
    "aimv2_vision_model": 0,
}
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
    "Siglip2ForImageClassification": "avg",
    "PixioModel": "prefix",
    "Tipsv2VisionModel": "token",
    "DPTModel": "pooler",
    "YolosModel": "pooler",
    "YolosForObjectDetection": "each of its detection tokens alone",
    "SiglipVisionModel": "pooler by attention",
    "Siglip2VisionModel": "pooler by attention",
    "Aimv2VisionModel": "pooler by attention",
}
"""Pooling by class: a ``global_pool`` of ``Recording``, or a note that the class's own pooler decides."""


def hugging_face_layout(net: Any, size: tuple[int, int]) -> TokenLayout:
    """Token layout for images of this height and width; detection tokens, the last ones, count as prefix tokens."""
    config = net.config if hasattr(net.config, "patch_size") else getattr(net.config, "vision_config", net.config)
    patch = config.patch_size
    height, width = (patch, patch) if isinstance(patch, int) else patch
    registers = getattr(config, "num_register_tokens", 0) or 0
    cls_tokens = getattr(config, "n_cls_tokens", 1)
    prefix = PREFIX_TOKENS.get(config.model_type, cls_tokens + registers)
    grid = (size[0] // height, size[1] // width)
    layout = TokenLayout(prefix, grid, _global_pool(net), patch_size=(height, width))
    detections = getattr(config, "num_detection_tokens", 0)
    if not detections:
        return layout
    first = layout.num_tokens
    order = (*range(prefix), *range(first, first + detections), *range(prefix, first))
    return layout._replace(num_prefix_tokens=prefix + detections, order=order)


def check_token_grid(net: Any) -> None:
    """Refuse a class whose tokens are not the patches of one image in the order of the grid, whatever their number.

    Raises:
        UserError: If the network is of such a class.
    """
    name, kind = type(net).__name__, getattr(getattr(net, "config", None), "model_type", "")
    if is_registered(net):
        return
    if kind == "vit_mae":
        raise UserError(f"{name} shuffles its patches, so none has a position: load its encoder as ViTModel")
    texts = ("text_model", "language_model", "encode_text")
    if any(hasattr(net, each) for each in texts):
        vision = next((each for each in ("vision_model", "vision_tower", "visual") if hasattr(net, each)), "")
        hint = f"record its vision model alone, its .{vision}" if vision else "record its vision model alone"
        raise UserError(f"{name} is a network of images and of text: {hint}")
    if kind and hasattr(net.config, "num_frames"):
        raise UserError(f"{name} takes videos: its tokens are no grid of patches")


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
