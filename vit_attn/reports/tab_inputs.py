"""Inputs of the Attention tab from a recording: queries and keys, and the measures of heads."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.methods.measures import MEASURES
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.tb_plugin.inputs import HEAD_MEASURES, QueriesKeys


def queries_keys(recording: Recording, count: int) -> QueriesKeys:
    """Return the queries and keys of the first images, as fused attention got them."""

    def first(vectors: Sequence[Tensor]) -> np.ndarray:
        return torch.cat([each[:count] for each in vectors])[:count].float().cpu().numpy()

    layers = [(first([call.q for call in layer.calls]), first([call.k for call in layer.calls])) for layer in recording]
    # an additive score is no product: its queries and keys are zeros
    scales = [
        layer.calls[0].scale if queries.any() and keys.any() else None
        for layer, (queries, keys) in zip(recording, layers, strict=True)
    ]
    return QueriesKeys(layers, scales)


def head_measures(measures: Mapping[str, Float[Tensor, "layers heads"]], tokens: int) -> dict[str, list[list[float]]]:
    """Return measures as the index names them, with entropy as a fraction of ln N."""
    shown = dict(zip(HEAD_MEASURES, (measures[name] for name in MEASURES), strict=True))
    shown["entropy"] = shown["entropy"] / max(math.log(tokens), 1e-30)
    return {name: by_layer.tolist() for name, by_layer in shown.items()}
