import dataclasses
from types import SimpleNamespace

import pytest
import torch

from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_in_patches
from vit_attn.callbacks.attention_logger.scalars import pointing
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.data_protocol import GroundTruth


def truth(answer: int, context: int, grid: tuple[int, int] = (4, 4)) -> GroundTruth:
    return GroundTruth({"object": (answer,), "context": (context,)}, grid, "object")


def with_truth(snapshot: AttentionSnapshot, truth: GroundTruth) -> AttentionSnapshot:
    """The same snapshot of an image with another ground truth."""
    probe = SimpleNamespace(images=snapshot.probe.images, labels=snapshot.probe.labels, ground_truth=[truth])
    return dataclasses.replace(snapshot, ground_truth=ground_truth_in_patches(probe, snapshot.recording))


@pytest.mark.parametrize(("answer", "method"), [(3, "relevance"), (5, "last_layer"), (7, "rollout")])
def test_each_method_points_with_its_own_row(snapshot, answer, method):
    scores = {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 1 / 16} | {method: 1}
    expected = {f"vit_attention/pointing_fraction/{name}": score for name, score in scores.items()}
    assert pointing(with_truth(snapshot, truth(answer, 0))) == expected


def test_in_a_finer_grid_each_patch_of_the_answer_region_is_a_hit(snapshot):
    finer = with_truth(snapshot, truth(3, 0, (2, 2)))  # the lower right quarter: 10, 11, 14, 15
    scores = {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 4 / 16}
    assert pointing(finer) == {f"vit_attention/pointing_fraction/{name}": score for name, score in scores.items()}
    assert (
        pointing(with_truth(snapshot, truth(0, 3, (2, 2))))["vit_attention/pointing_fraction/last_layer"] == 1
    )  # 0, 1, 4, 5


def test_in_a_coarser_grid_nothing_points(snapshot):
    assert pointing(with_truth(snapshot, truth(63, 0, (8, 8)))) == {}


def test_images_without_the_answer_region_do_not_count(snapshot):
    image = snapshot.probe.images.expand(3, -1, -1, -1)
    other = GroundTruth({"context": (3,)}, (4, 4), "object")  # its answer region is missing
    empty = GroundTruth({"object": (), "context": (3,)}, (4, 4), "object")
    probe = SimpleNamespace(
        images=image, labels=torch.zeros(3, dtype=torch.int64), ground_truth=[truth(3, 0), other, empty]
    )
    found = dataclasses.replace(
        snapshot,
        logits=snapshot.logits.expand(3, -1),
        rows={method: rows.repeat(3, axis=0) for method, rows in snapshot.rows.items()},
        ground_truth=ground_truth_in_patches(probe, snapshot.recording),
    )
    scores = {"relevance": 1, "last_layer": 0, "rollout": 0, "chance": 1 / 16}
    assert pointing(found) == {f"vit_attention/pointing_fraction/{name}": score for name, score in scores.items()}
    assert pointing(with_truth(snapshot, empty)) == {}


def test_every_patch_of_a_region_that_covers_the_image_is_a_hit(snapshot):
    whole = GroundTruth({"object": tuple(range(16))}, (4, 4), "object")
    assert set(pointing(with_truth(snapshot, whole)).values()) == {1.0}
