import pytest
import torch
from torch.testing import assert_close

from vit_attn.attention_maps import edges, knockout
from vit_attn.attention_maps.evaluation.batch import EvalBatch, logits_by_batch
from vit_attn.attention_maps.evaluation.ground_truth import GroundTruthPatches
from vit_attn.attention_maps.evaluation.knockouts import knock_out_edges, knockout_effect
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 2, "num_heads": 4}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 2, 3])


def mask(*patches: list[int]) -> torch.Tensor:
    rows = torch.zeros(len(patches), 16, dtype=torch.bool)
    for row, chosen in zip(rows, patches, strict=True):
        row[chosen] = True
    return rows


REGIONS = {"object": mask([1, 2], [3], [4]), "hand": mask([7], [], [5, 6, 7])}


def net_of(**options) -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(**SIZES, **options).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(20)
        net.head.weight.normal_()
    return net


def batch_of(regions: dict[str, torch.Tensor], declared=(), **options) -> tuple[EvalBatch, torch.Tensor]:
    batch = EvalBatch(net_of(**options), IMAGES, LABELS, GroundTruthPatches(regions, tuple(declared)))
    return batch, logits_by_batch(batch.net, IMAGES)


def test_edges_between_regions_are_knocked_out_image_by_image():
    batch, before = batch_of(REGIONS, [("hand", "object")])
    found = knock_out_edges(batch, before)
    assert list(found) == [
        "pooled row → object",
        "pooled row → hand",
        "pooled row → as many others",
        "hand → object",
        "hand → as many others",
    ]
    for image, queries, keys in ((0, [8], [2, 3]), (2, [6, 7, 8], [5])):
        for name, cut in (
            ("hand → object", edges(17, queries, keys)),
            ("pooled row → object", edges(17, [0], keys)),
            ("pooled row → hand", edges(17, [0], queries)),
        ):
            with torch.no_grad(), knockout(batch.net, cut):
                after = batch.net(IMAGES[image : image + 1])
            expected = knockout_effect(before[image : image + 1], after, LABELS[image : image + 1])
            assert_close(found[name].logit[image], expected.logit[0], rtol=1e-4, atol=1e-5)
            assert found[name].logit[image].abs() > 1e-4


def test_an_image_without_the_region_has_no_effect_of_its_edges():
    batch, before = batch_of(REGIONS, [("hand", "object"), ("object", "hand")])
    found = knock_out_edges(batch, before)
    for name, effect in found.items():
        missing = effect.logit.isnan().tolist()
        assert missing == effect.accuracy.isnan().tolist()
        one_misses = name not in ("pooled row → object", "pooled row → as many others")
        assert missing == [False, one_misses, False], name


def test_a_region_that_no_image_has_has_no_row():
    batch, before = batch_of(REGIONS | {"none": mask([], [], [])}, [("object", "none")])
    assert not any("none" in name for name in knock_out_edges(batch, before))


def test_controls_have_as_many_keys_as_the_largest_region_and_none_in_a_region(monkeypatch):
    seen = []

    def logits(net, images, size, cut, pool):
        seen.append(cut)
        return logits_by_batch(net, images, size, cut, pool)

    monkeypatch.setattr("vit_attn.attention_maps.evaluation.knockouts.logits_by_batch", logits)
    batch, before = batch_of(REGIONS, [("object", "hand"), ("hand", "object")])
    names = list(knock_out_edges(batch, before, seed=3))
    cut = dict(zip(names, seen, strict=True))
    keys = {name: each.any(dim=1)[:, 1:] for name, each in cut.items()}
    taken = REGIONS["object"] | REGIONS["hand"]
    sizes = {"pooled row": [2, 1, 3], "object": [1, 0, 3], "hand": [2, 0, 1]}
    for query, counts in sizes.items():
        control = keys[f"{query} → as many others"]
        assert control.sum(dim=-1).tolist() == counts
        assert not (control & taken).any()
    assert not torch.equal(keys["pooled row → as many others"][2], keys["hand → as many others"][2])
    knock_out_edges(batch, before, seed=4)
    assert not torch.equal(seen[len(names) + 2], cut["pooled row → as many others"])


def test_there_is_no_control_where_too_few_patches_are_in_no_region():
    batch, before = batch_of({"object": mask([1], list(range(9)), [2])})
    found = knock_out_edges(batch, before)["pooled row → as many others"]
    assert found.logit.isnan().tolist() == [False, True, False]


def test_pools_without_edges_have_only_those_between_regions_and_a_pool_by_attention_has_its_own():
    batch, before = batch_of(REGIONS, [("hand", "object")], global_pool="avg")
    assert list(knock_out_edges(batch, before)) == ["hand → object", "hand → as many others"]
    batch, before = batch_of(REGIONS, global_pool="map")
    found = knock_out_edges(batch, before)["pooled row → object"]
    with torch.no_grad(), knockout(batch.net, pool=REGIONS["object"]):
        after = batch.net(IMAGES)
    assert_close(found.logit, knockout_effect(before, after, LABELS).logit, rtol=1e-4, atol=1e-5)
    assert found.logit.abs().min() > 1e-5


def test_edges_need_ground_truth():
    batch, before = batch_of(REGIONS)
    with pytest.raises(UserError, match="there is no ground truth"):
        knock_out_edges(batch._replace(ground_truth=None), before)


def test_the_effect_is_of_the_class_predicted_before_and_of_being_right():
    before = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    after = torch.tensor([[0.5, 1.0], [0.0, 2.0], [2.0, 0.0]])
    effect = knockout_effect(before, after, torch.tensor([0, 0, 1]))
    assert effect.logit.tolist() == [-1.5, -1.0, 1.0]
    assert effect.accuracy.tolist() == [-1.0, 0.0, 0.0]
    assert knockout_effect(before, after, torch.tensor([1, 1, 0])).accuracy.tolist() == [1.0, 0.0, 0.0]
