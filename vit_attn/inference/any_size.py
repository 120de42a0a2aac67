"""Networks that take images of any size, which is found out by trying one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.errors import UserError


class Patches(NamedTuple):
    """Patches of a network: height and width in pixels, and their number in an image of the network's own size."""

    size: tuple[int, int]
    count: int


def find_any_size_patches(net: Any, in_chans: int, img_size: tuple[int, int]) -> Patches | None:
    """Find the patches of a network that takes images of any size; None if it takes one size, or has no such grid.

    An image of one row of patches goes through it; a network with windows that need more takes no such pictures.

    Args:
        net: The network, in evaluation mode.
        in_chans: Channels of its images.
        img_size: Height and width of the images that it was trained on.
    """
    parameter = next(net.parameters())
    try:
        layout = token_layout(net, parameter.new_zeros(1, in_chans, *img_size))
    except UserError:
        return None
    if layout.patch_size is None:
        return None
    cols = 3 if layout.grid_size != (1, 3) else 2
    image = parameter.new_zeros(1, in_chans, layout.patch_size[0], cols * layout.patch_size[1])
    try:
        with torch.no_grad():  # inference tensors, if kept, could not enter the graph of relevance
            logits = net(image)
    except Exception:  # each class refuses another size in its own way
        return None
    is_classifier = isinstance(logits, Tensor) and logits.ndim == 2
    return Patches(layout.patch_size, layout.grid_size[0] * layout.grid_size[1]) if is_classifier else None
