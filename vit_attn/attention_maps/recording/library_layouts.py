"""Token layouts that the networks of ours, timm, torchvision and open_clip declare by their attributes."""

import inspect
from collections.abc import Iterator
from typing import Any

from timm.layers.attention_pool import AttentionPoolPrr
from timm.models.eva import Eva
from torch import nn

from vit_attn.attention_maps.recording.layout import UNKNOWN_POOL, TokenLayout
from vit_attn.errors import UserError
from vit_attn.model.vit import VisionTransformer

LIBRARIES = ("timm.", "torchvision.", "transformers.", "open_clip.", "clip.", "vit_attn.")
"""Packages whose classes pool as their attributes say."""
POOLING = ("forward", "forward_features", "forward_head", "pool")
"""Methods of those classes that determine the pooling."""
BLOCKS = (nn.ModuleList, nn.Sequential)
"""Containers of their blocks."""
OPEN_CLIP = ("conv1", "class_embedding", "positional_embedding", "transformer", "ln_post")
"""Attributes of the vision transformer of OpenAI's CLIP and of open_clip."""


def is_open_clip(net: object) -> bool:
    """Tell whether a network has the parts of open_clip's own vision transformer."""
    return all(hasattr(net, name) for name in OPEN_CLIP)


def torchvision_layout(net: Any, size: tuple[int, int]) -> TokenLayout:
    """Token layout of torchvision's vision transformer for images of this height and width."""
    patch = net.patch_size
    return TokenLayout(1, (size[0] // patch, size[1] // patch), "token", patch_size=(patch, patch))


def timm_layout(net: Any, size: tuple[int, int]) -> TokenLayout:
    """Token layout of a network of ours or timm's, or of another with the same attributes."""
    body = encoder_of(net)
    embed: Any = body.embeds if hasattr(body, "embeds") else body.patch_embed  # NaFlexViT's takes any size
    patch: tuple[int, int] | None
    if hasattr(embed, "dynamic_feat_size"):
        rows, cols = embed.dynamic_feat_size(size)
        patch = tuple(embed.feat_ratio(as_scalar=False))
    elif hasattr(embed, "grid_size") and embed.grid_size is not None:
        rows, cols = embed.grid_size
        patch = (size[0] // rows, size[1] // cols) if size[0] % rows == 0 == size[1] % cols else None
    else:
        patch = projected_patch(embed)
        rows, cols = size[0] // patch[0], size[1] // patch[1]
    pool = "prefix" if hasattr(net, "head_dist") else _timm_pool(net)  # two heads, averaged
    pools_all = isinstance(net, Eva) and pool == "map"  # without an attribute that says so
    include = getattr(net, "pool_include_prefix", pools_all)
    return TokenLayout(body.num_prefix_tokens, (rows, cols), pool, include, patch)


def encoder_of(net: Any) -> Any:
    """Get the encoder that a classifier of timm's wraps, or else the network itself."""
    own = hasattr(net, "embeds") or hasattr(net, "patch_embed") or not hasattr(net, "encoder")
    return net if own else net.encoder


def projected_patch(embed: Any) -> tuple[int, int]:
    """Height and width of the patches of an embedding that projects each patch alone, and all its pixels.

    Raises:
        AttributeError: If it does not, as one with overlapping patches, or if it does not say their size.
    """
    size = embed.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    first = next((each for each in embed.modules() if isinstance(each, (nn.Conv2d, nn.Linear))), None)
    if isinstance(first, nn.Conv2d) and first.kernel_size == first.stride == (height, width):
        return height, width
    if isinstance(first, nn.Linear) and first.in_features % (height * width) == 0:
        return height, width
    raise AttributeError(f"its {type(embed).__name__} does not project one patch after the other")


def _timm_pool(net: Any) -> str:
    """Pooling of such a network: its attention pool if it has one, whatever ``global_pool`` was set to since."""
    pool, module = net.global_pool, getattr(net, "attn_pool", None)
    encoder = encoder_of(net)
    if encoder is not net and getattr(encoder, "global_pool", "") not in ("", "none"):
        return ""  # what the encoder merged already
    if module is None or not _is_library_class(net):
        return pool
    if isinstance(net, VisionTransformer) and pool in ("", "token"):
        return pool
    if not type(module).__module__.startswith(LIBRARIES) or _is_overridden(module, "forward"):
        return ""
    return f"prr {module.pool}" if isinstance(module, AttentionPoolPrr) else "map"


def open_clip_layout(net: Any, size: tuple[int, int]) -> TokenLayout:
    """Token layout of open_clip's own vision transformer, or of another with the same attributes.

    Raises:
        UserError: If it pools by two attentions.
    """
    patch: Any = net.conv1.stride
    name, pool_type = type(net).__name__, getattr(net, "pool_type", "tok" if _is_library_class(net) else "none")
    pool = {"tok": "token", "avg": "avg"}.get(pool_type, "")
    module = getattr(net, "attn_pool", None)
    if module is not None and getattr(net, "attn_pool_contrastive", None) is not None:
        raise UserError(f"{name} pools by two attentions ({net.attn_pool_type}): record one with attentional_pool=True")
    if module is not None:
        queries = getattr(module, "query", None)
        single = queries is not None and len(queries) == 1
        pool = UNKNOWN_POOL if pool_type != "tok" or queries is None else "map" if single else "map token"
    grid = (size[0] // patch[0], size[1] // patch[1])
    return TokenLayout(1, grid, pool, module is not None, (patch[0], patch[1]))


def overrides_pooling(net: nn.Module) -> bool:
    """Tell whether a subclass or an assignment overrides how a library's network pools."""
    return _is_library_class(net) and any(
        _is_overridden(module, name) for module in _modules_around_blocks(net) for name in POOLING
    )


def _is_library_class(net: nn.Module) -> bool:
    return any(base.__module__.startswith(LIBRARIES) for base in type(net).__mro__)


def _modules_around_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Iterate over the module and the modules within it down to the container of the blocks."""
    yield module
    for child in module.children():
        if not isinstance(child, BLOCKS) and any(isinstance(m, BLOCKS) and _attends(m) for m in child.modules()):
            yield from _modules_around_blocks(child)


def _attends(module: nn.Module) -> bool:
    return any(part in type(each).__name__.lower() for each in module.modules() for part in ("attention", "attn"))


def _is_overridden(module: nn.Module, name: str) -> bool:
    """Tell whether a method of this name is defined outside the libraries."""
    method = vars(module).get(name, inspect.getattr_static(type(module), name, None))
    return callable(method) and not str(getattr(method, "__module__", "")).startswith((*LIBRARIES, "torch."))
