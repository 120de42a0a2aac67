"""Attention of any network, recorded while fused attention stays on, and what can be read from it."""

from vit_attn.attention_maps.record import Recording, record
from vit_attn.attention_maps.rollout import raw_rows, rollout

__all__ = ["Recording", "raw_rows", "record", "rollout"]
