from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_in_patches
from vit_attn.attention_maps.methods.registry import drawn_methods, find_method
from vit_attn.attention_maps.summary import summarize
from vit_attn.callbacks.attention_logger.snapshot import (
    AttentionSnapshot,
    SnapshotOptions,
)
from vit_attn.data import ImageData
from vit_attn.data_protocol import GroundTruth
from vit_attn.model import VisionTransformer


class Task(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


def task_of(**options) -> Task:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    return Task(VisionTransformer(img_size=32, patch_size=4, num_classes=10, **sizes, **options))


def data() -> ImageData:
    found = ImageData("coins")
    found.prepare_data()
    return found


def test_a_snapshot_has_what_its_options_name_and_leaves_the_network_as_it_was():
    task, images = task_of(drop_path_rate=0.2), data()
    task.net.blocks[0].eval()
    modes, state = [module.training for module in task.modules()], torch.get_rng_state()
    few = AttentionSnapshot.take(task, images, SnapshotOptions(2, (find_method("legrad"),)), step=7, always=True)
    assert (few.step, few.always, few.token_relevance, few.comparison) == (7, True, None, None)
    assert [method.name for method in few.rows] == ["legrad"]
    assert [rows.shape for rows in few.rows.values()] == [(2, 65)]
    assert not few.logits.requires_grad
    assert few.prefix_names == ["CLS"]
    assert [truth.answer for truth in few.ground_truth] == ["bought"] * 2
    whole = AttentionSnapshot.take(task, images, SnapshotOptions(2, drawn_methods(), True, True))
    assert whole.token_relevance.shape == (2, 65, 65)
    assert len(whole.comparison.by_image) == 2
    assert [module.training for module in task.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in task.parameters())


def test_its_maps_are_those_of_the_summaries_also_in_inference_mode():
    task, images = task_of(global_pool="avg", class_token=False), data()
    with torch.inference_mode():
        snapshot = AttentionSnapshot.take(task, images, SnapshotOptions(2, drawn_methods()))
    expected = summarize(task.net.eval(), images.normalize(images.probe(2).images))
    fields = {"relevance": "relevance", "last_layer": "last", "rollout": "rollout"}
    for method, rows in snapshot.rows.items():
        for row, summary in zip(rows, expected, strict=True):
            np.testing.assert_allclose(row, getattr(summary, fields[method.name]), atol=1e-6)


def test_images_may_have_regions_of_other_names(snapshot):
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    truths = [GroundTruth({"beak": (1,)}, (4, 4), "beak"), GroundTruth({"tail": (2,)}, (4, 4), "tail")]
    probe = SimpleNamespace(images=images, labels=torch.zeros(2, dtype=torch.int64), ground_truth=truths)
    assert ground_truth_in_patches(probe, snapshot.recording) == truths
