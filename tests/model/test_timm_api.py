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


def test_what_cannot_change_its_size_says_so():
    for options in ({"pos_embed": "rope"}, {"window": 3}):
        with pytest.raises(UserError, match="dynamic_img_size goes neither"):
            VisionTransformer(**SIZES, dynamic_img_size=True, **options)
