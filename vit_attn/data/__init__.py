"""Images for training: data sets by name, and one whose answer is known."""

from vit_attn.data.datasets.coins import Coins
from vit_attn.data.module import ImageData
from vit_attn.data.transforms.augment import Augment

__all__ = ["Augment", "Coins", "ImageData"]
