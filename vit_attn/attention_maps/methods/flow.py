"""Attention flow: maximum flow from each input token to a query, with attention as capacity.

It is not in the registry of attribution methods: one map takes seconds to minutes.
"""

from collections.abc import Sequence

import networkx
import numpy as np
import torch
from jaxtyping import Float
from networkx.algorithms.flow import preflow_push
from torch import Tensor

from vit_attn.attention_maps.methods.rollout import fuse
from vit_attn.attention_maps.precision import in_float32
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.errors import UserError

MOST_EDGES = 200_000
"""Edges of an image's graph above which a maximum flow takes minutes."""


@in_float32
def attention_flow(recording: Recording, queries: Sequence[int] | None = None) -> Float[Tensor, "B Q N"]:
    """Maximum flow from each query of the last layer to each input token, exact and slow.

    Edges between tokens of neighbouring layers have the capacity ½ attention + ½ identity, heads averaged. Each entry
    is a maximum flow of its own, so a row does not sum to 1. It uses attention only. It is for small networks, offline,
    and not in the registry, so ``judge`` and the logger do not offer it.

    Args:
        recording: Forwards of a network.
        queries: Token indices, prefix tokens first; by default the row that the network pools.

    Raises:
        UserError: If a query does not exist, or if the network is too large.

    References:
        Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv 2005.00928, section 3.
    """
    tokens = recording.num_tokens
    if (edges := len(recording) * tokens**2) > MOST_EDGES:
        raise UserError(
            f"attention flow is for small networks: {len(recording)} layers of {tokens} tokens have {edges} edges, "
            f"more than {MOST_EDGES}"
        )
    starts = recording.query_rows(queries).expand(recording.batch_size, -1, -1).cpu().double().numpy()
    maps = torch.stack([fuse(layer.weights()) for layer in recording], dim=1).cpu().double().numpy()  # (B, L, N, N)
    halves = 0.5 * maps + 0.5 * np.eye(tokens)
    flows = [[_flow(layers, row) for row in rows] for layers, rows in zip(halves, starts, strict=True)]
    return torch.from_numpy(np.array(flows, dtype=np.float32))


def _flow(layers: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Maximum flows from a row over the last layer's tokens to each input token, through (L, N, N)."""
    graph, depth = networkx.DiGraph(), len(layers)
    for token in np.flatnonzero(start):
        graph.add_edge("query", (depth, int(token)), capacity=float(start[token]))
    for level, layer in enumerate(layers):
        for query, key in zip(*np.nonzero(layer), strict=True):
            graph.add_edge((level + 1, int(query)), (level, int(key)), capacity=float(layer[query, key]))
    flows = np.zeros(len(start))
    for token in range(len(start)):
        if (0, token) in graph:
            flows[token] = networkx.maximum_flow_value(graph, "query", (0, token), flow_func=preflow_push)
    return flows
