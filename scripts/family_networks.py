"""Networks for ``check_families.py``, with random weights and as small as their classes allow."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torchvision.models
import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from vit_attn.attention_maps.recording.inputs import Inputs

PLAIN: dict[str, dict[str, Any]] = {
    "beit": {},
    "deepseek_vit": {"img_size": (84, 126)},
    "deit": {},
    "eva": {},
    "gemma4_vit": {"img_size": (96, 144), "head_dim": 16, "intermediate_size": 96, "position_embedding_size": 64},
    "naflexvit": {},
    "qwen3_vit": {},
    "vision_transformer": {},
    "vision_transformer_relpos": {},
}
"""Modules of timm of which all networks are built, two layers deep and 64 wide, with these options."""
FROM_PATCHES = ("gemma4_vit", "naflexvit")
"""Modules of timm whose networks take patches with their positions, too."""
TOO_LARGE = {"mobilenetv5": "its smallest network has 294 million parameters, and no option makes it smaller"}
SMALLEST = {
    "byoanet": "halonet_h1",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "davit": "davit_tiny",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientvit_msra": "efficientvit_m0",
    "gcvit": "gcvit_xxtiny",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "metaformer": "caformer_s18",
    "maxxvit": "maxvit_pico_rw_256",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "pit": "pit_ti_224",
    "pvt_v2": "pvt_v2_b0",
    "resnest": "resnest14d",
    "sknet": "skresnet18",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "twins": "twins_svt_small",
    "visformer": "visformer_tiny",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "xcit": "xcit_nano_12_p8_224",
}
"""Smallest network of timm's other modules with attention; of the rest the first is built, on the meta device."""
POOLS = ("avgmax", "max", "map", "prr", "")
"""Poolings that few or none of the registered networks of timm's plain transformer have."""
WRITTEN_OUT = (
    "vit_tiny_patch16_224",
    "vit_base_patch16_siglip_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
    "vit_relpos_small_patch16_224",
    "naflexvit_base_patch16_map",
)
"""Networks of timm that are built once more with ``fused_attn=False``."""
EAGER = (
    "BeitForImageClassification",
    "CLIPVisionModel",
    "Data2VecVisionForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
    "DINOv3ViTModel",
    "IJepaForImageClassification",
    "PixioModel",
    "SiglipVisionModel",
    "SwinForImageClassification",
    "ViTForImageClassification",
)
"""Classes of transformers that are built once more with ``attn_implementation="eager"``."""
BESIDE = (
    "ViTForMaskedImageModeling",
    "ViTMAEForPreTraining",
    "YolosForObjectDetection",
    "DPTForDepthEstimation",
    "CLIPVisionModel",
    "CLIPVisionModelWithProjection",
    "CLIPModel",
    "MetaClip2VisionModel",
    "SiglipModel",
    "Siglip2VisionModel",
    "Data2VecVisionModel",
    "BeitForMaskedImageModeling",
    "BeitForSemanticSegmentation",
    "InternVLVisionModel",
    "VitPoseForPoseEstimation",
    "SamVisionModel",
    "EomtForUniversalSegmentation",
    "Dinov2Backbone",
    "VideoMAEForVideoClassification",
    "SegformerForSemanticSegmentation",
)
"""Vision models of transformers that its auto classes do not list."""
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 16,
    "decoder_hidden_size": 64,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 96,
    "vision_output_dim": 64,
    "projection_dim": 64,
}


@dataclass(frozen=True)
class Candidate:
    """Network to check, and its images."""

    package: str
    family: str
    name: str
    build: Callable[..., nn.Module]
    """Builds the network; with ``unfused=True``, without fused attention if that is decided when it is built."""
    images: tuple[int, ...] = ()
    meta: bool = False
    patches: bool = False
    """Whether it is given patches with their positions, shuffled and padded, instead of images."""


def candidates() -> Iterator[Candidate]:
    """List all networks, library by library."""
    yield from of_timm()
    yield from of_torchvision()
    yield from of_transformers()


def of_timm() -> Iterator[Candidate]:
    """List every network of the plain modules, one of each other module, and timm's other poolings."""
    for module in sorted(timm.list_modules()):
        names = timm.list_models(module=module)
        if module in PLAIN:
            yield from (tiny_timm(module, name, **PLAIN[module]) for name in names)
            yield from (without_fused_attention(tiny_timm(module, name)) for name in names if name in WRITTEN_OUT)
            if module in FROM_PATCHES:
                plain = (tiny_timm(module, name, "patches", **PLAIN[module]) for name in names)
                yield from (replace(each, patches=True) for each in plain)
        elif module in TOO_LARGE:
            yield Candidate("timm", module, names[0], lambda unfused=False, module=module: _refuse(TOO_LARGE[module]))
        elif module in SMALLEST:
            name = SMALLEST[module]
            yield Candidate("timm", module, name, lambda unfused=False, name=name: _smallest(name))
        else:
            library = "vit_attn" if module == "zoo" else "timm"  # ours are in its registry, too
            yield Candidate(
                library, module, names[0], lambda unfused=False, name=names[0]: timm.create_model(name), meta=True
            )
    for pool in POOLS:
        for class_token in (True, False):
            label = f"{pool or 'none'}, {'with' if class_token else 'without'} CLS"
            yield tiny_timm(
                "vision_transformer", "vit_tiny_patch16_224", label, global_pool=pool, class_token=class_token
            )


def without_fused_attention(candidate: Candidate) -> Candidate:
    """Build the same network with attention as a softmax and a product."""

    def build(unfused: bool = False) -> nn.Module:
        net = candidate.build()
        attentions: Any = [module for module in net.modules() if hasattr(module, "fused_attn")]
        for module in attentions:
            module.fused_attn = False
        return net

    return replace(candidate, name=f"{candidate.name} (fused_attn=False)", build=build)


def _smallest(name: str) -> nn.Module:
    options: dict[str, Any] = {"img_size": 64} if name.startswith("vitamin") else {}
    return timm.create_model(name, **options)


def _refuse(reason: str) -> nn.Module:
    raise ValueError(reason)


def tiny_timm(module: str, name: str, label: str = "", **options: Any) -> Candidate:
    """Build a plain transformer of timm's with a grid of 4×6."""
    patch = int(found[1]) if (found := re.search(r"patch(\d+)", name)) else 16
    size: tuple[int, int] = options.get("img_size", (4 * patch, 6 * patch))
    sizes: dict[str, Any] = {"img_size": size, "depth": 2, "embed_dim": 64, "num_heads": 4, "num_classes": 5} | options
    if module != "gemma4_vit":
        sizes["mlp_ratio"] = 2.0
    if "sapiens2" in name:  # grouped heads, as many as each block has
        sizes["num_kv_heads"] = [4, 2]

    def build(unfused: bool = False) -> nn.Module:
        return timm.create_model(name, **sizes)

    return Candidate("timm", module, f"{name} ({label})" if label else name, build, (2, 3, *size))


def of_torchvision() -> Iterator[Candidate]:
    """List torchvision's vision transformers; the windowed ones in their smallest size."""
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 96, "num_classes": 5}
    for patch in (16, 32):
        side = 4 * patch
        options: Any = {"image_size": 4 * patch, "patch_size": patch} | sizes
        yield Candidate(
            "torchvision",
            "vision_transformer",
            f"VisionTransformer (patch {patch})",
            lambda unfused=False, options=options: torchvision.models.VisionTransformer(**options),
            (2, 3, side, side),
        )
    for family, name in (("swin_transformer", "swin_t"), ("swin_transformer", "swin_v2_t"), ("maxvit", "maxvit_t")):
        yield Candidate(
            "torchvision", family, name, lambda unfused=False, name=name: torchvision.models.get_model(name)
        )


def of_transformers() -> Iterator[Candidate]:
    """List transformers' models of images, from small configurations."""
    names: dict[str, None] = {}
    for mapping in ("MODEL_FOR_IMAGE_MAPPING_NAMES", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"):
        for listed in getattr(modeling_auto, mapping).values():
            names |= dict.fromkeys([listed] if isinstance(listed, str) else listed)
    for name in sorted(names | dict.fromkeys(BESIDE)):
        yield of_class(name)
    for name in ("BeitForImageClassification", "Data2VecVisionForImageClassification", "BeitModel"):
        yield of_class(name, "use_mean_pooling=False", use_mean_pooling=False)
    yield of_class("DeiTModel", "no pooler", arguments={"add_pooling_layer": False})
    yield from (of_class(name, "eager", is_eager=True) for name in EAGER)


def of_class(
    name: str, label: str = "", arguments: dict[str, Any] | None = None, is_eager: bool = False, **options: Any
) -> Candidate:
    """Get a class of transformers by its name."""
    found = getattr(transformers, name)

    def build(unfused: bool = False) -> nn.Module:
        config = tiny_config(found.config_class, **options)
        if unfused or is_eager:
            config._attn_implementation = "eager"
        return found(config, **(arguments or {}))

    return Candidate("transformers", found.__module__.split(".")[2], f"{name} ({label})" if label else name, build, ())


def tiny_config(kind: Any, **options: Any) -> Any:
    """Make a configuration of this class with all its sizes small."""
    default = kind()
    sizes: dict[str, Any] = {
        key: size for key, size in TINY.items() if isinstance(getattr(default, key, None), int) and _plain(default)
    }
    if getattr(default, "initializer_range", 1) < 1e-6:  # SAM's, of which nothing passes its first norm
        sizes["initializer_range"] = 0.02
    for part in ("vision_config", "text_config", "backbone_config"):
        if getattr(default, part, None) is not None:
            sizes[part] = tiny_config(type(getattr(default, part))).to_dict()
    if isinstance(getattr(default, "image_size", None), (list, tuple)):
        sizes["image_size"] = [64, 96]
    labels = {} if "text_config" in sizes else {"num_labels": 5}
    if "detr" in default.model_type or default.model_type == "table-transformer":
        sizes |= {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": False}
    return kind(**(sizes | labels | options))


def _plain(config: Any) -> bool:
    """Tell whether the configuration has one width; the sizes of hierarchical networks depend on each other."""
    return not any(isinstance(getattr(config, name, None), (list, tuple)) for name in ("depths", "hidden_sizes"))


def images_of(candidate: Candidate, net: nn.Module) -> Inputs:
    """Make random images that the network takes, or patches."""
    generator = torch.Generator().manual_seed(1)
    if candidate.family == "siglip2":
        patches = torch.randn(2, 17, 3 * 16 * 16, generator=generator, dtype=torch.float64)
        valid = (torch.arange(17) < 15).expand(2, -1)
        shapes = torch.tensor([[3, 5], [3, 5]])
        return {"pixel_values": patches, "pixel_attention_mask": valid, "spatial_shapes": shapes}
    if candidate.patches:
        side = patch_size_of(net)
        valid = torch.tensor([True] * 14 + [False] * 9 + [True] * 4)
        cells = torch.tensor([[row, col] for row in range(3) for col in range(6)])
        coordinates = torch.zeros(27, 2, dtype=torch.int64)
        coordinates[valid] = cells[torch.randperm(18, generator=generator)]
        patches = torch.randn(2, 27, 3 * side[0] * side[1], generator=generator, dtype=torch.float64)
        whole = {"patch_coord": coordinates.expand(2, -1, -1), "patch_valid": valid.expand(2, -1)}
        return {"patches": patches} | whole
    shape: tuple[int, ...] = candidate.images
    if not shape and candidate.package != "transformers":
        shape = (2, *getattr(net, "default_cfg", {}).get("input_size", (3, 224, 224)))
        shape = (2, 3, 64, 64) if candidate.family == "vitamin" else shape
        shape = (2, 3, 224, 224) if shape[-1] > 512 else shape  # as any size is taken
    if not shape:
        config: Any = getattr(net.config, "vision_config", net.config)
        side = getattr(config, "image_size", None) or 224
        height, width = (side, side) if isinstance(side, int) else side
        frames = (config.num_frames,) if hasattr(config, "num_frames") else ()
        shape = (2, *frames, getattr(config, "num_channels", 3), height, width)
    return torch.randn(shape, generator=generator).double()


def patch_size_of(net: Any) -> tuple[int, int]:
    """Get the height and width of a patch of timm's networks that take patches."""
    body = getattr(net, "encoder", net)
    return (body.embeds if hasattr(body, "embeds") else body.patch_embed).patch_size
