import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from timm.optim import create_optimizer_v2
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 4, "num_heads": 4}


def pair(**options) -> tuple[VisionTransformer, TimmViT]:
    """Our network and timm's with the same random weights."""
    ours, theirs = VisionTransformer(**(SIZES | options)).eval(), TimmViT(**(SIZES | options)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"indices": 2},
        {"indices": [0, -1], "return_prefix_tokens": True},
        {"indices": [1], "stop_early": True, "intermediates_only": True},
        {"norm": True, "output_fmt": "NLC"},
    ],
)
def test_intermediates_agree_with_timms(options):
    ours, theirs = pair(reg_tokens=2)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(ours.forward_intermediates(images, **options), theirs.forward_intermediates(images, **options))


@pytest.mark.parametrize("options", [{}, {"no_embed_class": True}, {"global_pool": "avg", "reg_tokens": 1}])
@pytest.mark.parametrize("size", [(32, 32), (16, 40), (64, 64)])
def test_images_of_other_sizes_agree_with_timms(size, options):
    ours, theirs = pair(dynamic_img_size=True, **options)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_a_new_head_has_its_classes_and_no_head_gives_features():
    ours, theirs = pair()
    images = torch.randn(2, 3, 32, 32)
    for net in (ours, theirs):
        net.reset_classifier(0)
    assert_close(ours(images), theirs(images))
    for net in (ours, theirs):
        net.reset_classifier(0, "")
    assert_close(ours(images), theirs(images))
    assert_close(ours.forward_features(images), theirs.forward_features(images))
    ours.reset_classifier(7, "avg")
    assert ours(images).shape == (2, 7)
    assert ours.get_classifier() is ours.head
    assert ours.num_classes == 7
    with pytest.raises(UserError, match="global_pool must be one of"):
        ours.reset_classifier(7, "max")


def test_checkpointed_blocks_give_the_same_gradients():
    ours, _ = pair()
    ours.train()
    images, gradients = torch.randn(2, 3, 32, 32), []
    for enable in (False, True):
        ours.set_grad_checkpointing(enable)
        ours.zero_grad()
        ours(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])
    assert_close(gradients[0], gradients[1])


def test_layer_wise_decay_gives_each_parameter_the_rate_that_timms_network_has():
    ours, theirs = pair(reg_tokens=2, global_pool="avg")
    scales = []
    for net in (ours, theirs):
        optimizer = create_optimizer_v2(net, "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.7)
        of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        groups = {name: of[id(parameter)] for name, parameter in net.named_parameters()}
        scales.append({name: (group["lr_scale"], group["weight_decay"]) for name, group in groups.items()})
    if "reg_token" not in theirs.no_weight_decay():  # in older timm
        for of_net in scales:
            del of_net["reg_token"]
    assert scales[0] == scales[1]
    assert len({scale for scale, _ in scales[0].values()}) == 6  # the stem, four blocks, the head


def test_timms_feature_extraction_works_by_name():
    features = timm.create_model("vit_attn_tiny_patch4_32", features_only=True, depth=3, out_indices=(0, 2))
    maps = features(torch.randn(1, 3, 32, 32))
    assert [tuple(map_.shape) for map_ in maps] == [(1, 192, 8, 8)] * 2
    assert features.feature_info.channels() == [192, 192]


def test_pruning_leaves_the_blocks_that_are_needed():
    ours, theirs = pair()
    images = torch.randn(2, 3, 32, 32)
    assert ours.prune_intermediate_layers([1]) == theirs.prune_intermediate_layers([1])
    assert len(ours.blocks) == 2
    assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("options", [{"pos_embed": "rope"}, {"window": 3}, {"pos_embed": "sincos"}, {}])
def test_a_network_of_another_size_is_the_same_network(options):
    """Taken as they come, or set for good, or built so: images of another size get the same logits."""
    dynamic = VisionTransformer(**SIZES, dynamic_img_size=True, global_pool="map", **options).eval()
    own, other = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 24, 40)
    before, logits = dynamic(own), dynamic(other)
    assert_close(dynamic(own), before)
    dynamic.set_input_size((24, 40))
    assert_close(dynamic(other), logits)
    assert dynamic.patch_embed.grid_size == (3, 5)
    if options.get("pos_embed") == "rope" or "window" in options:  # nothing that is resampled but what is learned
        built = VisionTransformer(**(SIZES | {"img_size": (24, 40)}), global_pool="map", **options).eval()
        state = dynamic.state_dict()
        built.load_state_dict(state)
        assert_close(built(other), logits)


def test_set_sizes_agree_with_timms():
    ours, theirs = pair(reg_tokens=2)
    for sizes in ({"img_size": 48}, {"img_size": (16, 32), "patch_size": 4}, {"patch_size": (8, 8)}):
        for net in (ours, theirs):
            net.set_input_size(**sizes)
        assert {name: tuple(each.shape) for name, each in ours.state_dict().items()} == {
            name: tuple(each.shape) for name, each in theirs.state_dict().items()
        }
        images = torch.randn(2, 3, *ours.patch_embed.img_size)
        assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
        assert [info["reduction"] for info in ours.feature_info] == [ours.patch_embed.patch_size[0]] * 4
    with pytest.raises(UserError, match="img_size must be a multiple of patch_size, got img_size=30x30, patch_size=8"):
        ours.set_input_size(30)
    with pytest.raises(UserError, match="the convolutional stem keeps its patches of 8 pixels, got patch_size=4"):
        VisionTransformer(**SIZES, stem="conv").set_input_size(patch_size=4)


@pytest.mark.parametrize("trains", [True, False])
def test_position_embeddings_stay_frozen_or_trainable_when_the_size_changes(trains):
    net = VisionTransformer(**SIZES)
    net.pos_embed.requires_grad_(trains)
    net.set_input_size(48)
    assert isinstance(net.pos_embed, torch.nn.Parameter)
    assert net.pos_embed.shape[1] == 1 + 36
    assert net.pos_embed.requires_grad == trains


def test_a_pool_by_attention_agrees_with_timms_both_ways():
    options = {"global_pool": "map", "class_token": False, "fc_norm": False}
    ours, theirs = VisionTransformer(**SIZES, **options).eval(), TimmViT(**SIZES, **options).eval()
    images = torch.randn(2, 3, 32, 32)
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
    ours.reset_classifier(5, "avg")
    assert ours(images).shape == (2, 5)
    with pytest.raises(UserError, match="cannot be added later"):
        ours.reset_classifier(5, "map")
