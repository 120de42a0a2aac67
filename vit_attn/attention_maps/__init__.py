"""Where a vision transformer looks: recorded while it runs, and mapped."""

from vit_attn.attention_maps.knockout import ablate, edges, knockout
from vit_attn.attention_maps.record import record
from vit_attn.attention_maps.recording import Recording
from vit_attn.attention_maps.relevance import grad_rollout, legrad, relevance
from vit_attn.attention_maps.rollout import raw_rows, rollout

__all__ = [
    "Recording",
    "ablate",
    "edges",
    "grad_rollout",
    "knockout",
    "legrad",
    "raw_rows",
    "record",
    "relevance",
    "rollout",
]
