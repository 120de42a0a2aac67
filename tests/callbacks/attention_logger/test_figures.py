import dataclasses
from types import SimpleNamespace

import pytest

from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_in_patches
from vit_attn.attention_maps.methods.registry import drawn_methods
from vit_attn.callbacks.attention_logger import figures
from vit_attn.callbacks.attention_logger.figures import blocks, overlay
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot
from vit_attn.data_protocol import GroundTruth
from vit_attn.plotting.overlay import Mark

NAMES = ["cat", "dog"]


def truth(answer: int, context: int, grid: tuple[int, int] = (4, 4)) -> GroundTruth:
    return GroundTruth({"object": (answer,), "context": (context,)}, grid, "object")


def with_truth(snapshot: AttentionSnapshot, truth: GroundTruth) -> AttentionSnapshot:
    """The same snapshot of an image with another ground truth."""
    probe = SimpleNamespace(images=snapshot.probe.images, labels=snapshot.probe.labels, ground_truth=[truth])
    return dataclasses.replace(snapshot, ground_truth=ground_truth_in_patches(probe, snapshot.recording))


def test_relevance_is_drawn_first_for_the_class_that_it_is_of_and_in_shares_of_the_patches(snapshot, monkeypatch):
    drawn = []

    def draw(image, _title, maps, *_):
        drawn.extend(maps)
        return image

    monkeypatch.setattr(figures, "draw_overlays", draw)
    assert list(snapshot.rows) == list(drawn_methods())
    overlay(snapshot, 0, NAMES)
    assert [each.title for each in drawn] == ["relevance", "last layer", "rollout"]
    assert [each.note for each in drawn] == ["for dog", "", ""]
    assert [int(each.patches.argmax()) for each in drawn] == [3, 5, 7]
    assert drawn[0].patches.sum() == 1


def test_in_a_finer_grid_a_region_is_outlined_as_a_whole(snapshot):
    finer = with_truth(snapshot, truth(3, 0, (2, 2)))  # the lower right quarter: 10, 11, 14, 15
    expected = [Mark("object", 10, "solid", 2, 2), Mark("context", 0, "dotted", 2, 2)]
    assert figures._marks(finer, 0) == expected


def test_in_a_coarser_grid_pictures_are_drawn_without_marks(snapshot):
    coarser = with_truth(snapshot, truth(63, 0, (8, 8)))
    assert coarser.ground_truth is None
    assert overlay(coarser, 0, NAMES).shape[2] == 3


def test_each_part_of_a_region_is_outlined_and_a_region_around_the_answer_is_not(snapshot):
    regions = {"whole": (5, 6, 9), "left": (0, 4, 15), "object": (5, 6)}
    parted = with_truth(snapshot, GroundTruth(regions, (4, 4), "object"))
    assert figures._marks(parted, 0) == [
        Mark("object", 5, "solid", 1, 2),
        Mark("left", 0, "dotted", 2, 1),
        Mark("left", 15, "dotted", 1, 1),
    ]
    assert overlay(parted, 0, NAMES).shape[2] == 3


@pytest.mark.parametrize(
    "patches", [(0,), (0, 8), (1, 5, 13), (0, 1, 4, 5), (0, 1, 4), (3, 4), (0, 2, 4, 6, 5), tuple(range(16))]
)
def test_blocks_cover_each_patch_once(patches):
    covered = [
        first + 4 * row + col for first, rows, cols in blocks(patches, 4) for row in range(rows) for col in range(cols)
    ]
    assert sorted(covered) == sorted(patches)


def test_where_the_answer_region_is_empty_the_others_are_outlined(snapshot):
    regions = {"object": (), "left_wing": (5,)}
    assert figures._marks(with_truth(snapshot, GroundTruth(regions, (4, 4), "object")), 0) == [
        Mark("left wing", 5, "dotted", 1, 1)
    ]


def test_a_region_of_all_patches_is_outlined_around_the_image(snapshot):
    whole = with_truth(snapshot, GroundTruth({"object": tuple(range(16))}, (4, 4), "object"))
    assert figures._marks(whole, 0) == [Mark("object", 0, "solid", 4, 4)]
