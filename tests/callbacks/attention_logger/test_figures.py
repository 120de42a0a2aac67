from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vit_attn.attention_maps.summary import AttentionSummary
from vit_attn.callbacks.attention_logger import figures as attention_pictures
from vit_attn.callbacks.attention_logger.figures import METHODS, Snapshot, overlay, pointing
from vit_attn.data_protocol import GroundTruth
from vit_attn.plotting.overlay import Mark


def one_hot(patch: int) -> np.ndarray:
    row = np.zeros(17, dtype=np.float32)
    row[1 + patch] = 1
    return row


@pytest.fixture
def taken() -> Snapshot:
    """Relevance is on patch 3, the last layer on patch 5, rollout on patch 7."""
    chances = np.array([0.1, 0.9], dtype=np.float32)
    heads = np.stack([one_hot(9)] * 2)[None]
    view = AttentionSummary(
        heads, one_hot(5), one_hot(7), 0.5 * one_hot(3), chances, target=1, grid_size=(4, 4), num_prefix_tokens=1
    )
    return Snapshot([view], None, (0,), pools_by_attention=False)


def truth(bought: int, buyer: int, grid: tuple[int, int] = (4, 4)) -> GroundTruth:
    return GroundTruth({"bought": (bought,), "buyer": (buyer,)}, grid, "bought")


def probe(bought: int) -> SimpleNamespace:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    return SimpleNamespace(images=images, labels=torch.zeros(1, dtype=torch.int64), ground_truth=[truth(bought, 0)])


@pytest.mark.parametrize(("bought", "method"), [(3, "relevance"), (5, "last_layer"), (7, "rollout")])
def test_each_method_points_with_its_own_row(taken, bought, method):
    assert pointing(taken, probe(bought)) == {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 1 / 16} | {
        method: 1
    }


def test_relevance_is_drawn_first_for_the_class_that_it_is_of_and_in_shares_of_the_patches(taken, monkeypatch):
    drawn = []

    def draw(image, _title, maps, *_):
        drawn.extend(maps)
        return image

    monkeypatch.setattr(attention_pictures, "draw_overlays", draw)
    overlay(taken, probe(3), 0, ["cat", "dog"])
    assert [each.title for each in drawn] == list(METHODS) == ["relevance", "last layer", "rollout"]
    assert [each.note for each in drawn] == ["for dog", "", ""]
    assert [int(each.patches.argmax()) for each in drawn] == [3, 5, 7]
    assert drawn[0].patches.sum() == 1


def test_in_a_finer_grid_the_bought_coin_is_outlined_as_a_whole_and_each_of_its_patches_is_a_hit(taken, monkeypatch):
    finer = probe(3)
    finer.ground_truth = [truth(3, 0, (2, 2))]  # the lower right quarter: 10, 11, 14, 15
    assert pointing(taken, finer) == {"relevance": 0, "last_layer": 0, "rollout": 0, "chance": 4 / 16}
    view = taken.views[0]
    coin, buyer = attention_pictures._marks(finer, 0, view)
    assert (coin, buyer) == (Mark("bought", 10, "solid", 2, 2), Mark("buyer", 0, "dotted", 2, 2))
    finer.ground_truth = [truth(0, 3, (2, 2))]  # 0, 1, 4, 5
    assert pointing(taken, finer)["last_layer"] == 1


def test_in_a_coarser_grid_pictures_are_drawn_without_marks(taken):
    coarser = probe(3)
    coarser.ground_truth = [truth(63, 0, (8, 8))]
    assert pointing(taken, coarser) == {}
    assert overlay(taken, coarser, 0, ["cat", "dog"]).shape[2] == 3
