import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vit_attn.attention_maps.methods.registry import find_method
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.callbacks.attention_logger import figures
from vit_attn.callbacks.attention_logger.figures import blocks, overlay
from vit_attn.callbacks.attention_logger.scalars import pointing
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, default_methods, ground_truth_in_patches
from vit_attn.data_protocol import GroundTruth
from vit_attn.model import VisionTransformer
from vit_attn.plotting.overlay import Mark

NAMES = ["cat", "dog"]


def one_hot(patch: int) -> np.ndarray:
    row = np.zeros(17, dtype=np.float32)
    row[1 + patch] = 1
    return row


def truth(answer: int, context: int, grid: tuple[int, int] = (4, 4)) -> GroundTruth:
    return GroundTruth({"object": (answer,), "context": (context,)}, grid, "object")


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
    probe = SimpleNamespace(images=images, labels=torch.zeros(1, dtype=torch.int64), ground_truth=[truth(3, 0)])
    return AttentionSnapshot(
        step=0,
        recording=recording.on_host(),
        logits=torch.tensor([[0.1, 0.9]]),
        summaries=[summary],
        rows={find_method(name): row[None] for name, row in rows.items()},
        token_relevance=None,
        comparison=None,
        probe=probe,
        ground_truth=[truth(3, 0)],
        prefix_names=["CLS"],
        always=True,
    )


def knowing(snapshot: AttentionSnapshot, found: GroundTruth) -> AttentionSnapshot:
    """The same snapshot of an image with another ground truth."""
    probe = SimpleNamespace(images=snapshot.probe.images, labels=snapshot.probe.labels, ground_truth=[found])
    return dataclasses.replace(snapshot, ground_truth=ground_truth_in_patches(probe, snapshot.recording))


@pytest.mark.parametrize(("answer", "method"), [(3, "relevance"), (5, "last_layer"), (7, "rollout")])
def test_each_method_points_with_its_own_row(snapshot, answer, method):
    scores = {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 1 / 16} | {method: 1}
    expected = {f"attention_pointing/{name}": score for name, score in scores.items()}
    assert pointing(knowing(snapshot, truth(answer, 0))) == expected


def test_relevance_is_drawn_first_for_the_class_that_it_is_of_and_in_shares_of_the_patches(snapshot, monkeypatch):
    drawn = []

    def draw(image, _title, maps, *_):
        drawn.extend(maps)
        return image

    monkeypatch.setattr(figures, "draw_overlays", draw)
    assert list(snapshot.rows) == list(default_methods())
    overlay(snapshot, 0, NAMES)
    assert [each.title for each in drawn] == ["relevance", "last layer", "rollout"]
    assert [each.note for each in drawn] == ["for dog", "", ""]
    assert [int(each.patches.argmax()) for each in drawn] == [3, 5, 7]
    assert drawn[0].patches.sum() == 1


def test_in_a_finer_grid_a_region_is_outlined_as_a_whole_and_each_of_its_patches_is_a_hit(snapshot):
    finer = knowing(snapshot, truth(3, 0, (2, 2)))  # the lower right quarter: 10, 11, 14, 15
    scores = {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 4 / 16}
    assert pointing(finer) == {f"attention_pointing/{name}": score for name, score in scores.items()}
    expected = [Mark("object", 10, "solid", 2, 2), Mark("context", 0, "dotted", 2, 2)]
    assert figures._marks(finer, 0) == expected
    assert pointing(knowing(snapshot, truth(0, 3, (2, 2))))["attention_pointing/last_layer"] == 1  # 0, 1, 4, 5


def test_in_a_coarser_grid_pictures_are_drawn_without_marks(snapshot):
    coarser = knowing(snapshot, truth(63, 0, (8, 8)))
    assert coarser.ground_truth is None
    assert pointing(coarser) == {}
    assert overlay(coarser, 0, NAMES).shape[2] == 3


def test_each_part_of_a_region_is_outlined_and_a_region_around_the_answer_is_not(snapshot):
    regions = {"whole": (5, 6, 9), "left": (0, 4, 15), "object": (5, 6)}
    parted = knowing(snapshot, GroundTruth(regions, (4, 4), "object"))
    assert figures._marks(parted, 0) == [
        Mark("object", 5, "solid", 1, 2),
        Mark("left", 0, "dotted", 2, 1),
        Mark("left", 15, "dotted", 1, 1),
    ]
    assert overlay(parted, 0, NAMES).shape[2] == 3


@pytest.mark.parametrize("patches", [(0,), (0, 1, 4, 5), (0, 1, 4), (3, 4), (0, 2, 4, 6, 5), tuple(range(16))])
def test_blocks_cover_each_patch_once(patches):
    covered = [
        first + 4 * row + col for first, rows, cols in blocks(patches, 4) for row in range(rows) for col in range(cols)
    ]
    assert sorted(covered) == sorted(patches)


def test_images_may_have_regions_of_other_names(snapshot):
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    truths = [GroundTruth({"beak": (1,)}, (4, 4), "beak"), GroundTruth({"tail": (2,)}, (4, 4), "tail")]
    probe = SimpleNamespace(images=images, labels=torch.zeros(2, dtype=torch.int64), ground_truth=truths)
    assert ground_truth_in_patches(probe, snapshot.recording) == truths
