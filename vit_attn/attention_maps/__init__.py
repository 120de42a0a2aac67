"""Attention maps of vision transformers: recording, attribution methods and knock-outs."""

from vit_attn.attention_maps.methods.legrad import legrad
from vit_attn.attention_maps.methods.registry import attribution_method, attribution_methods
from vit_attn.attention_maps.methods.relevance import grad_rollout, relevance
from vit_attn.attention_maps.methods.rollout import raw_rows, rollout
from vit_attn.attention_maps.recording.knockout import ablate, edges, knockout
from vit_attn.attention_maps.recording.layout import TokenLayout, register_layout
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording

__all__ = [
    "Recording",
    "TokenLayout",
    "ablate",
    "attribution_method",
    "attribution_methods",
    "edges",
    "grad_rollout",
    "knockout",
    "legrad",
    "raw_rows",
    "record",
    "register_layout",
    "relevance",
    "rollout",
]
