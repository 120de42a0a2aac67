import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}
FORMS = {
    "cls": {},
    "mean": {"global_pool": "avg"},
    "mean without cls": {"global_pool": "avg", "class_token": False},
    "registers": {"reg_tokens": 4},
    "registers without positions": {"reg_tokens": 4, "no_embed_class": True},
    "layer scale": {"init_values": 0.1},
    "qk-norm": {"qk_norm": True},
    "cls, norm after pool": {"fc_norm": True},
    "no bias, wide image": {"qkv_bias": False, "img_size": (16, 48)},
    "features": {"num_classes": 0},
}


def enlarge(net: torch.nn.Module) -> None:
    """Make every parameter count: fresh prefix tokens and norms would hide a mistake."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
def test_logits_and_weights_go_both_ways_between_ours_and_timms(options):
    sizes = SIZES | options
    ours, theirs = VisionTransformer(**sizes).eval(), TimmViT(**sizes).eval()
    img_size = sizes["img_size"]
    images = torch.randn(3, 3, *((img_size, img_size) if isinstance(img_size, int) else img_size))

    enlarge(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)

    enlarge(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_close(theirs(images), ours(images), rtol=0, atol=1e-5)


def test_gradients_agree_with_timms_with_drop_path_off():
    ours, theirs = VisionTransformer(**SIZES), TimmViT(**SIZES)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for net in (ours, theirs):
        net(images).square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_drop_path_grows_from_nothing_to_its_rate_and_acts_in_training_only():
    net = VisionTransformer(**SIZES, drop_path_rate=0.5)
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.blocks] == [0.0, 0.25, 0.5]
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(net(images), net(images))
    assert torch.equal(net.eval()(images), net(images))


def test_the_convolutional_stem_gives_the_same_grid_and_sees_over_patch_borders():
    net = VisionTransformer(**SIZES, stem="conv")
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    tokens = net.patch_embed(image)
    assert tokens.shape == (1, 16, 48)
    assert net.patch_embed.grid_size == (4, 4)
    tokens[0, 5].sum().backward()
    assert image.grad[..., 7, 8:16].abs().max() > 0  # patch 5 begins at row 8
    assert not [name for name in net.state_dict() if "proj.weight" == name]


def test_what_is_not_decayed_exists():
    net = VisionTransformer(**SIZES, reg_tokens=2)
    assert net.no_weight_decay() <= dict(net.named_parameters()).keys()


def test_our_sizes_are_in_timms_registry_with_options():
    assert set(timm.list_models("vit_attn_*")) >= {f"vit_attn_{size}_patch4_32" for size in ("tiny", "small", "base")}
    net = timm.create_model("vit_attn_tiny_patch4_32", num_classes=7, depth=2, embed_dim=96)
    assert isinstance(net, VisionTransformer)
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert len(net.blocks) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "img_size must be a multiple of patch_size, got img_size=32x32, patch_size=5"),
        ({"img_size": (32, 30)}, "got img_size=32x30, patch_size=8"),
        ({"num_heads": 5}, "got dim=48, num_heads=5"),
        ({"global_pool": "max"}, "global_pool must be one of token, avg, got 'max'"),
        ({"class_token": False}, "global_pool='token' needs class_token=True"),
        ({"stem": "con"}, "stem must be one of linear, conv, got 'con', did you mean 'conv'"),
        ({"stem": "conv", "img_size": 30, "patch_size": 6}, "power of two, got 6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        VisionTransformer(**(SIZES | options))
