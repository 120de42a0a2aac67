"""Our vision transformer. Importing this package registers its sizes in timm's registry as ``vit_attn_*``."""

from vit_attn.model import zoo as _zoo  # noqa: F401  registers the sizes
from vit_attn.model.attention import Attention, Form
from vit_attn.model.block import Block
from vit_attn.model.vit import VisionTransformer

__all__ = ["Attention", "Block", "Form", "VisionTransformer"]
