"""Images for training: data sets by name, and one whose answer is known."""

from vit_attn.data.augment import Augment
from vit_attn.data.coins import Coins
from vit_attn.data.module import ImageData

__all__ = ["Augment", "Coins", "ImageData"]
