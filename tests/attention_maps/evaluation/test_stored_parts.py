"""Parts of an evaluation in a folder: found again, and never mixed with those of another."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches
from vit_attn.attention_maps.evaluation.measures import JudgeSettings, measure_part, merge_parts
from vit_attn.attention_maps.evaluation.stored_parts import PartStore, fingerprint
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SETTINGS = {"weights": "abc", "seed": 0, "minutes": None}


@pytest.fixture
def batch() -> EvalBatch:
    net = VisionTransformer(img_size=32, patch_size=8, num_classes=4, embed_dim=24, depth=1, num_heads=2).eval()
    truth = GroundTruthPatches({"some": torch.eye(16, dtype=torch.bool)[:3]})
    return EvalBatch(net, torch.randn(3, 3, 32, 32), torch.arange(3), truth)


def test_a_part_is_found_again_as_it_was(batch, tmp_path: Path):
    measures = measure_part(batch, JudgeSettings(steps=2))
    PartStore(tmp_path / "parts", SETTINGS).save(0, batch, measures)
    store = PartStore(tmp_path / "parts", SETTINGS)
    assert 0 in store
    assert 3 not in store
    found = store.load(0, batch)
    assert list(found) == list(measures)
    for key, values in measures.items():
        assert_close(found[key], values, rtol=0, atol=0, equal_nan=True)


def test_a_damaged_part_is_measured_again(batch, tmp_path: Path):
    store = PartStore(tmp_path, SETTINGS)
    store.save(0, batch, {("correct",): torch.ones(3)})
    (part,) = tmp_path.glob("*.pt")
    part.write_bytes(part.read_bytes()[:-200])
    assert store.load(0, batch) is None
    assert store.load(3, batch) is None


def test_parts_of_other_settings_are_not_taken_and_the_message_names_them(batch, tmp_path: Path):
    PartStore(tmp_path, SETTINGS)
    PartStore(tmp_path, SETTINGS)
    with pytest.raises(UserError, match=r"an unfinished evaluation with other weights, seed: finish it .* --output"):
        PartStore(tmp_path, SETTINGS | {"weights": "def", "seed": 1})


def test_a_part_of_other_images_is_not_taken(batch, tmp_path: Path):
    store = PartStore(tmp_path, SETTINGS)
    store.save(0, batch, {("correct",): torch.ones(3)})
    with pytest.raises(UserError, match="an unfinished evaluation with other images"):
        store.load(0, batch._replace(images=batch.images + 1e-6))


def test_labels_and_ground_truth_belong_to_the_images_fingerprint(batch):
    others = [
        batch,
        batch._replace(labels=None),
        batch._replace(labels=batch.labels + 1),
        batch._replace(ground_truth=None),
        batch.part(slice(2)),
    ]
    assert len({fingerprint(each) for each in others}) == len(others)
    assert fingerprint(batch) == fingerprint(batch._replace(net=torch.nn.Identity()))


def test_one_changed_weight_changes_the_fingerprint_of_a_network(batch):
    before = fingerprint(batch.net)
    with torch.no_grad():
        next(batch.net.parameters())[0] += 1e-3
    assert fingerprint(batch.net) != before


def test_what_is_done_is_removed_and_other_files_stay(batch, tmp_path: Path):
    store = PartStore(tmp_path / "parts", SETTINGS)
    store.save(0, batch, {("correct",): torch.ones(3)})
    (tmp_path / "parts" / "notes.txt").write_text("mine")
    store.remove()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["notes.txt"]
    other = PartStore(tmp_path / "other", SETTINGS)
    other.remove()
    assert not (tmp_path / "other").exists()


def test_merged_parts_are_the_images_in_order():
    parts = [{("correct",): torch.tensor([0.0, 1.0])}, {("correct",): torch.tensor([2.0])}]
    assert merge_parts(parts)["correct",].tolist() == [0.0, 1.0, 2.0]
