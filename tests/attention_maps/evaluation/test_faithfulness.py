"""The measures on networks whose true answer is known by construction."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models import VisionTransformer as TorchvisionViT
from transformers import ViTConfig, ViTForImageClassification

from vit_attn.attention_maps import edges, knockout, raw_rows, record, relevance, rollout
from vit_attn.attention_maps.evaluation.faithfulness import (
    Curve,
    centre_first_map,
    deletion,
    insertion,
    order_of,
    pointing,
    random_maps,
)
from vit_attn.attention_maps.evaluation.knockouts import knock_out_top
from vit_attn.attention_maps.evaluation.randomization import (
    parameter_groups,
    randomization_check,
    rank_correlation,
    reinitialised,
)
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}
GRID, TRUE = (4, 4), 7


class OnePatch(nn.Module):
    """Class 1 if the patch ``TRUE`` of a 4 by 4 grid is bright; no other patch is read."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = SimpleNamespace(grid_size=GRID)
        self.num_prefix_tokens, self.global_pool = 0, "avg"

    def forward(self, images: Tensor) -> Tensor:
        row, col = divmod(TRUE, 4)
        patch = images[:, :, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(patch), patch], dim=-1)


IMAGES = 3 + torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TRUTH = torch.zeros(6, 16).index_fill(1, torch.tensor([TRUE]), 1.0)


def test_the_true_map_beats_random_and_centre_by_exactly_the_share_of_its_patch():
    net = OnePatch()
    full = net(IMAGES).softmax(dim=-1)[:, 1]
    best = [deletion(net, IMAGES, order_of(TRUTH)).area, insertion(net, IMAGES, order_of(TRUTH)).area]
    assert_close(best[0], (full - 0.5) / 32 + 0.5)  # half a step of 16 above what nothing gives
    assert_close(best[1], full - (full - 0.5) / 32)
    baselines = [order_of(random_maps((6, 16), seed)) for seed in range(20)]
    random = [torch.stack([f(net, IMAGES, order).area for order in baselines]).mean() for f in (deletion, insertion)]
    centre = [f(net, IMAGES, order_of(centre_first_map(GRID))).area.mean() for f in (deletion, insertion)]
    for lowest, highest in (random, centre):
        assert best[0].max() < lowest - 0.1
        assert best[1].min() > highest + 0.1


def test_deletion_is_insertion_in_reverse_and_its_ends_are_the_whole_image_and_none():
    net = VisionTransformer(**SIZES).eval()
    order = order_of(random_maps((6, 16), 0))
    target = torch.arange(6)
    down = deletion(net, IMAGES, order, target, batch=4).probabilities
    up = insertion(net, IMAGES, order.flip(-1), target).probabilities
    assert down.shape == (6, 17)
    assert_close(down, up.flip(-1))
    with torch.no_grad():
        for points, images in ((down[:, 0], IMAGES), (down[:, -1], torch.zeros_like(IMAGES))):
            assert_close(points, net(images).softmax(dim=-1)[torch.arange(6), target])


def test_each_image_has_its_own_order_and_one_row_serves_all():
    net, order = OnePatch(), order_of(TRUTH)
    mixed = order.clone()
    mixed[0] = order[0].flip(-1)
    probabilities = deletion(net, IMAGES, mixed).probabilities
    assert probabilities[0, 1] > 0.9
    assert_close(probabilities[1:, 1], torch.full((5,), 0.5))
    assert_close(deletion(net, IMAGES, order[:1]).area, deletion(net, IMAGES, order).area)


def test_the_area_is_the_trapezoids():
    assert_close(Curve(torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 0.0]])).area, torch.tensor([0.5, 0.75]))


def test_fewer_steps_take_several_patches_at_once():
    curve = deletion(OnePatch(), IMAGES, order_of(TRUTH), steps=5)
    assert curve.probabilities.shape == (6, 6)
    before = [(step, rank) for step, rank in ((1, 2), (2, 5), (3, 9), (4, 12))]  # 3, 6, 10 and 13 of 16 patches
    for step, rank in before:
        for first, deleted in ((rank, True), (rank + 1, False)):
            order = torch.tensor([[patch for patch in range(16) if patch != TRUE]])
            order = torch.cat([order[:, :first], torch.tensor([[TRUE]]), order[:, first:]], dim=1)
            probabilities = deletion(OnePatch(), IMAGES, order, steps=5).probabilities[:, step]
            assert bool((probabilities < 0.6).all()) == deleted
    with pytest.raises(UserError, match="steps must be at least 1, got 0"):
        deletion(OnePatch(), IMAGES, order_of(TRUTH), steps=0)
    with pytest.raises(UserError, match=r"must be of 16 patches for 6 images, got \(6, 9\)"):
        deletion(OnePatch(), IMAGES, order_of(torch.rand(6, 9)))


def test_the_order_is_the_highest_first_and_the_centre_first_has_the_middle_first():
    assert order_of(torch.tensor([[0.1, 0.9, 0.9, 0.5]])).tolist() == [[1, 2, 3, 0]]
    order = order_of(centre_first_map((3, 5)))[0].tolist()
    assert order[0] == 7
    assert set(order[-4:]) == {0, 4, 10, 14}


def test_random_patches_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    assert torch.equal(random_maps((2, 3), 5), random_maps((2, 3), 5))
    assert not torch.equal(random_maps((2, 3), 5), random_maps((2, 3), 6))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pointing_hits_where_the_top_ranked_patch_is_in_the_region():
    maps = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.1, 0.4], [0.0, 0.2, 0.8]])
    one = torch.tensor([[0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    assert pointing(maps, one).tolist() == [1, 0, 1]
    two = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    assert pointing(maps, two).tolist() == [0, 1, 0]


def test_pointing_is_unknown_for_an_image_without_the_region_and_takes_regions_of_any_size():
    maps = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.1, 0.4], [0.0, 0.2, 0.8]])
    region = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    first, *others = pointing(maps, region).tolist()
    assert first != first
    assert others == [1, 0]


def test_rank_correlation_is_pearsons_of_mean_ranks():
    a, b = torch.tensor([[3.0, 1.0, 4.0, 1.0, 5.0]]), torch.tensor([[2.0, 7.0, 1.0, 8.0, 8.0]])
    ranks = torch.tensor([[3.0, 1.5, 4.0, 1.5, 5.0], [2.0, 3.0, 1.0, 4.5, 4.5]])
    assert_close(rank_correlation(a, b)[0], torch.corrcoef(ranks)[0, 1])
    assert_close(rank_correlation(a, a.exp()), torch.ones(1))
    flat = torch.ones(1, 5)
    assert rank_correlation(flat, flat).item() == 1.0
    assert rank_correlation(flat, a).item() == 0.0


@pytest.fixture
def net() -> VisionTransformer:
    net = VisionTransformer(**SIZES).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(20)
        net.head.weight.normal_()
    return net


def maps(net: nn.Module) -> dict[str, Tensor]:
    with record(net, gradients=True) as recording:
        net(IMAGES)
    rows = {"raw": raw_rows(recording), "rollout": rollout(recording), "relevance": relevance(recording, 3)}
    return {name: each[:, 0, 1:] for name, each in rows.items()} | {
        "edges of pixels": IMAGES[:, 0, ::8, ::8].flatten(1)
    }


def test_what_ignores_the_network_keeps_its_map_and_what_does_not_loses_it(net):
    found = randomization_check(net, maps, stages=(0, 1, 5))
    assert all(each.shape == (3, 6) for each in found.values())
    assert_close(found["edges of pixels"], torch.ones(3, 6))
    for name in ("raw", "rollout", "relevance"):
        assert_close(found[name][0], torch.ones(6))  # nothing was re-initialised
        assert found[name][2].abs().mean() < 0.5
    assert_close(found["rollout"][1], torch.ones(6))  # a class-agnostic method does not depend on the head
    assert found["relevance"][1].mean() < 0.9
    assert_close(randomization_check(net, maps)["raw"], found["raw"][2:])


def test_the_callers_network_gradients_and_random_state_are_left_alone(net):
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.random.get_rng_state()
    randomization_check(net, maps, stages=(1, 5))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(net.head.weight.grad, torch.ones_like(net.head.weight))
    assert sum(parameter.grad is not None for parameter in net.parameters()) == 1


def test_weights_are_reinitialised_group_by_group_with_their_own_scale(net):
    one, three = reinitialised(net, 1), reinitialised(net, 3)
    for other, blocks in ((one, {}), (three, {"1", "2"})):
        for name, parameter in net.named_parameters():
            changed = not torch.equal(parameter, dict(other.named_parameters())[name])
            constant = bool(parameter.std(correction=0) == 0)
            inside = name.startswith(("head", "norm")) or (name.startswith("blocks") and name.split(".")[1] in blocks)
            assert changed == (inside and not constant), name
    weight = three.blocks[2].attn.qkv.weight
    assert_close(weight.std(), net.blocks[2].attn.qkv.weight.std(), rtol=0.05, atol=0)
    assert torch.equal(one.head.weight, three.head.weight)
    assert not torch.equal(one.head.weight, reinitialised(net, 1, seed=1).head.weight)
    with pytest.raises(UserError, match=r"groups must be in 0\.\.5, got 6"):
        reinitialised(net, 6)


FAMILIES = {
    "ours": lambda: VisionTransformer(**SIZES),
    "ours, pool by attention": lambda: VisionTransformer(**SIZES, global_pool="map"),
    "timm": lambda: timm.create_model("vit_tiny_patch16_224", depth=3, embed_dim=48, num_heads=4),
    "torchvision": lambda: TorchvisionViT(32, 8, 3, 4, 48, 64, num_classes=5),
    "hugging face": lambda: ViTForImageClassification(
        ViTConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_network_are_all_its_parameters_from_the_head_to_the_embedding(family: str):
    net = FAMILIES[family]()
    parts = parameter_groups(net)
    assert sorted(name for part in parts for name in part) == sorted(name for name, _ in net.named_parameters())
    assert len(parts) == 5 + (getattr(net, "global_pool", "") == "map")
    assert any("head" in name or "classifier" in name for name in parts[0])
    assert all(".2." in name or "layer_2" in name for name in parts[-4])
    assert any(word in name for word in ("patch", "conv_proj") for name in parts[-1])


@pytest.mark.parametrize("options", [{}, {"global_pool": "map"}])
def test_with_every_patch_cut_nothing_of_the_image_is_left(options):
    net = VisionTransformer(**SIZES, **options).eval()
    with torch.no_grad():
        before = net(IMAGES)
        elsewhere = torch.randn(1, 3, 32, 32)
        cut = edges(17, range(17), range(1, 17)) & ~torch.eye(17, dtype=torch.bool)
        pool = torch.ones(1, 16, dtype=torch.bool) if options else None
        with knockout(net, cut, pool=pool):
            blind = net(elsewhere)
    named = before.argmax(dim=-1)
    change = knock_out_top(net, IMAGES, named, torch.arange(16)[None], count=16, batch=4)
    assert_close(change.logit, blind[0, named] - before.amax(dim=-1), rtol=1e-4, atol=1e-5)
    assert_close(change.accuracy, (blind.argmax() == named).float() - 1)
    assert change.logit.abs().amin() > 1e-3


def test_only_the_first_patches_of_the_order_are_cut_and_they_still_see_themselves(net):
    order = order_of(random_maps((6, 16), 0))
    change = knock_out_top(net, IMAGES, torch.zeros(6, dtype=torch.int64), order, count=2)
    for image in range(6):
        cut = torch.zeros(17, 17, dtype=torch.bool)
        for patch in order[image, :2].tolist():
            cut[:, 1 + patch] = True
            cut[1 + patch, 1 + patch] = False
        with torch.no_grad():
            before = net(IMAGES[image : image + 1])[0]
            with knockout(net, cut):
                after = net(IMAGES[image : image + 1])[0]
        named = before.argmax()
        assert_close(change.logit[image], after[named] - before[named], rtol=1e-4, atol=1e-5)
        assert change.accuracy[image] == float(after.argmax() == 0) - float(named == 0)
    with pytest.raises(UserError, match=r"count must be in 1\.\.16, got 17"):
        knock_out_top(net, IMAGES, torch.zeros(6, dtype=torch.int64), order, count=17)
