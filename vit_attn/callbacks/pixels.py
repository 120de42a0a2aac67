"""Pixels of normalised images, for figures of what a network is given."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vit_attn.data_protocol import ProbeData
from vit_attn.plotting.scale import Picture


def pixels_of(images: Float[Tensor, "B C height width"], data: ProbeData) -> UInt8[Tensor, "B C height width"]:
    """Undo the normalisation of images; what lies outside of black and white, as after augmentation, is cut off.

    Args:
        images: Normalised images.
        data: Data module that normalised them.
    """
    channels = images.shape[1]
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, channels, 1, 1)
    black, white = data.normalize(ends.to(images.device)).float()
    fractions = (images.float() - black) / (white - black)
    return (255 * fractions.clamp(0, 1)).round().to(torch.uint8)


def pictures_of(pixels: UInt8[Tensor, "B C height width"]) -> list[Picture]:
    """Return images of one or three channels as pictures; of others, the first channel."""
    shown = pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return list(np.ascontiguousarray(shown.permute(0, 2, 3, 1).cpu().numpy()))
