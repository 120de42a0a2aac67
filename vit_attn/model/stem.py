"""Convolutional patch embedding."""

from itertools import pairwise
from typing import Any

from timm.layers import LayerNorm2d, PatchEmbed, to_2tuple
from torch import nn

from vit_attn.errors import UserError


class ConvStem(PatchEmbed):
    """Convolutional stem: 3×3 convolutions of stride 2 instead of one linear map of disjoint patches.

    Each convolution halves the image, so the patch size must be a power of two; the grid of tokens is the same.

    References:
        Xiao 2021, "Early convolutions help transformers see better", arXiv 2106.14881.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        strict_img_size: bool = True,
    ) -> None:
        """Create the convolutions; widths double up to ``embed_dim``.

        Args:
            img_size: Height and width of the images in pixels.
            patch_size: Pixels from one token to the next, a power of two.
            in_chans: Channels of the images.
            embed_dim: Width of a token.
            strict_img_size: Whether images of another size are refused.

        Raises:
            UserError: If the patch size is not a power of two.
        """
        super().__init__(img_size, patch_size, in_chans, embed_dim, strict_img_size=strict_img_size)
        halvings = patch_size.bit_length() - 1
        if patch_size < 2 or patch_size != 2**halvings:
            raise UserError(f"the convolutional stem needs a patch_size that is a power of two, got {patch_size}")
        widths = [in_chans, *(embed_dim // 2**i for i in range(halvings - 1, -1, -1))]
        layers: list[nn.Module] = []
        for i, (narrow, wide) in enumerate(pairwise(widths)):
            layers += [LayerNorm2d(narrow), nn.GELU()] if i else []
            layers.append(nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1))
        self.add_module("proj", nn.Sequential(*layers))  # in place of the linear map

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image size.

        Raises:
            UserError: If the patch size is to change, which the convolutions determine.
        """
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            raise UserError(
                f"the convolutional stem keeps its patches of {self.patch_size[0]} pixels, got patch_size={patch_size}"
            )
        super().set_input_size(img_size=img_size)
