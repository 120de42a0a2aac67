"""How the tokens of a network are laid out: how many come before the patches, the grid, and what is pooled."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from vit_attn.errors import UserError


class Layout(NamedTuple):
    """The tokens of one forward; names and meanings as in ``Recording``."""

    num_prefix_tokens: int
    grid_size: tuple[int, int]
    global_pool: str
    pool_include_prefix: bool = False


def layout_of(net: nn.Module, images: Tensor) -> Layout:
    """The layout for these images, of a network of ours, timm's, torchvision's or Hugging Face's.

    Raises:
        UserError: If the network does not say.
    """
    size: tuple[int, int] = (images.shape[-2], images.shape[-1])
    any_net: Any = net
    try:
        if hasattr(any_net, "config"):
            return _hugging_face(any_net, size)
        if hasattr(any_net, "conv_proj"):  # torchvision
            return Layout(1, (size[0] // any_net.patch_size, size[1] // any_net.patch_size), "token")
        embed = any_net.patch_embed
        dynamic = getattr(any_net, "dynamic_img_size", False) and hasattr(embed, "dynamic_feat_size")
        rows, cols = embed.dynamic_feat_size(size) if dynamic else embed.grid_size
        include_prefix = getattr(any_net, "pool_include_prefix", False)
        return Layout(any_net.num_prefix_tokens, (rows, cols), any_net.global_pool, include_prefix)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{type(net).__name__} does not say how its tokens are laid out: {error}") from error


def _hugging_face(net: Any, size: tuple[int, int]) -> Layout:
    """CLS and registers before the patches; a classifier reads CLS, or CLS beside the mean over the patches."""
    patch = net.config.patch_size
    rows, cols = (patch, patch) if isinstance(patch, int) else patch
    both = net.config.model_type.startswith("dinov2") and hasattr(net, "classifier")
    prefix = 1 + getattr(net.config, "num_register_tokens", 0)
    return Layout(prefix, (size[0] // rows, size[1] // cols), "token+avg" if both else "token")
