"""Data sets by name, and ``Coins``, a generated one with ground-truth patches."""

from vit_attn.data.datasets.coins import Coins
from vit_attn.data.datasets.own import register_dataset
from vit_attn.data.module import ImageData
from vit_attn.data.transforms.augment import Augment

__all__ = ["Augment", "Coins", "ImageData", "register_dataset"]
