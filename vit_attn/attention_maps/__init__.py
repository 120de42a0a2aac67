"""Where a vision transformer looks: recorded while it runs, and mapped."""

from vit_attn.attention_maps.methods.legrad import legrad
from vit_attn.attention_maps.methods.relevance import grad_rollout, relevance
from vit_attn.attention_maps.methods.rollout import raw_rows, rollout
from vit_attn.attention_maps.recording.knockout import ablate, edges, knockout
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording

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
