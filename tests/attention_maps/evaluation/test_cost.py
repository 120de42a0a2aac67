"""Memory and forward passes of an evaluation, counted, are those that it was planned with."""

import pytest
import timm
import torch

from vit_attn.attention_maps.evaluation import cost
from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.cost import RecordingSize, forwards_per_image, recording_size
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches
from vit_attn.attention_maps.evaluation.measures import (
    RECORDED_NETWORKS,
    RECORDING_COST,
    JudgeSettings,
    measure_part,
)
from vit_attn.attention_maps.evaluation.report import judge_network
from vit_attn.model import VisionTransformer


@pytest.fixture
def net() -> VisionTransformer:
    net = VisionTransformer(img_size=32, patch_size=8, num_classes=4, embed_dim=24, depth=2, num_heads=2).eval()
    torch.nn.init.normal_(net.head.weight)
    return net


@pytest.fixture
def passed(net, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward pass of the network and of its copies."""
    found, forward = [], VisionTransformer.forward

    def counted(self, images):
        found.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(VisionTransformer, "forward", counted)
    return found


@pytest.mark.parametrize("known", [True, False])
def test_the_forward_passes_are_as_many_as_planned_and_all_are_reported(known, net, passed):
    truth = GroundTruthPatches({"some": torch.eye(16, dtype=torch.bool)[:3]}, (("some", "some"),)) if known else None
    batch = EvalBatch(net, torch.randn(3, 3, 32, 32), torch.arange(3) if known else None, truth)
    planned, reported = forwards_per_image(batch.part(slice(1)), steps=4), []
    passed.clear()
    measure_part(batch, JudgeSettings(steps=4), on_forwards=reported.append)
    assert sum(reported) == 3 * planned
    recorded = 2 * RECORDED_NETWORKS  # of LeGrad, and of all other methods
    others = sum(passed) - 3 * recorded
    assert others == 3 * (planned - RECORDED_NETWORKS * RECORDING_COST) + 1  # one image, to count the heads


def test_the_last_report_of_progress_is_that_all_is_done(net):
    told = []
    judge_network(EvalBatch(net, torch.randn(5, 3, 32, 32)), steps=2, part=2, on_progress=lambda *x: told.append(x))
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


def test_no_forward_pass_takes_more_images_than_planned(net, passed):
    measure_part(EvalBatch(net, torch.randn(6, 3, 32, 32)), JudgeSettings(steps=4, batch=8))
    assert max(passed) == 8


def test_the_graph_of_as_many_images_as_are_recorded_at_once_fits_the_bound(monkeypatch: pytest.MonkeyPatch):
    net = timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=10).eval()
    monkeypatch.setattr(cost, "HOST_BYTES", 40_000_000)
    size = recording_size(net, torch.randn(1, 3, 224, 224))
    count = size.images_at_once
    assert 1 < count < 10
    assert 2 * recording_size(net, torch.randn(count, 3, 224, 224)).graph <= 40_000_000
    assert 2 * recording_size(net, torch.randn(count + 1, 3, 224, 224)).graph > 40_000_000


def test_the_graph_of_a_block_is_counted_by_hand():
    net = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10).eval()
    one, two = (
        recording_size(timm.create_model("vit_tiny_patch16_224", depth=depth, num_classes=10).eval(), image).graph
        for depth, image in ((1, torch.randn(1, 3, 224, 224)), (2, torch.randn(1, 3, 224, 224)))
    )
    tokens, width = 197, 192
    assert recording_size(net, torch.randn(1, 3, 224, 224)).layers == 2
    # two norms' inputs and outputs, qkv, attention's output, and the MLP's hidden layer before and after GELU
    assert two - one == pytest.approx(4 * tokens * width * (4 + 3 + 1 + 4 + 4), rel=0.1)


def test_a_network_larger_than_the_bound_is_judged_one_image_at_a_time():
    size = RecordingSize(10 * cost.HOST_BYTES, layers=4, bound=cost.HOST_BYTES)
    assert size.images_at_once == size.forward_batch == 1
    assert RecordingSize(100_000, layers=4, bound=cost.HOST_BYTES).images_at_once == cost.MOST_RECORDED
    assert RecordingSize(100_000, layers=4, bound=cost.HOST_BYTES).forward_batch == cost.MOST_AT_ONCE
