"""A snapshot whose methods each point at a patch of their own."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vit_attn.attention_maps.methods.registry import find_method
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.data_protocol import GroundTruth
from vit_attn.model import VisionTransformer


def one_hot(patch: int) -> np.ndarray:
    row = np.zeros(17, dtype=np.float32)
    row[1 + patch] = 1
    return row


@pytest.fixture
def snapshot() -> AttentionSnapshot:
    """Relevance is on patch 3, the last layer on patch 5, rollout on patch 7; the answer is patch 3."""
    net = VisionTransformer(img_size=16, patch_size=4, num_classes=2, embed_dim=8, depth=1, num_heads=1).eval()
    with record(net) as recording:
        net(torch.zeros(1, 3, 16, 16))
    chances = np.array([0.1, 0.9], dtype=np.float32)
    heads = np.stack([one_hot(9)])[None]
    summary = AttentionSummary(
        heads, one_hot(5), one_hot(7), 0.5 * one_hot(3), chances, target=1, grid_size=(4, 4), num_prefix_tokens=1
    )
    rows = {"relevance": 0.5 * one_hot(3), "last_layer": one_hot(5), "rollout": one_hot(7)}
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    truth = GroundTruth({"object": (3,), "context": (0,)}, (4, 4), "object")
    probe = SimpleNamespace(images=images, labels=torch.zeros(1, dtype=torch.int64), ground_truth=[truth])
    return AttentionSnapshot(
        step=0,
        recording=recording.on_host(),
        logits=torch.tensor([[0.1, 0.9]]),
        summaries=[summary],
        rows={find_method(name): row[None] for name, row in rows.items()},
        token_relevance=None,
        comparison=None,
        probe=probe,
        ground_truth=[truth],
        prefix_names=["CLS"],
        always=True,
    )
