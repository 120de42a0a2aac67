import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.model.scores import AFFINITIES

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
    "pool by attention": {"global_pool": "map"},
    "pool by attention, registers": {"global_pool": "map", "reg_tokens": 2},
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


@pytest.mark.parametrize("global_pool", ["token", "map"])
def test_parameters_are_initialised_with_the_mean_and_the_spread_of_timms(global_pool):
    options = SIZES | {"reg_tokens": 16, "embed_dim": 192, "global_pool": global_pool}
    ours, theirs = VisionTransformer(**options), TimmViT(**options).state_dict()
    for name, tensor in ours.state_dict().items():
        mean, spread = theirs[name].mean().item(), theirs[name].std().item()
        assert tensor.std().item() == pytest.approx(spread, rel=0.3, abs=0), name
        assert tensor.mean().item() == pytest.approx(mean, abs=0.5 * spread + 1e-12), name
        assert tensor.abs().max() <= 2 + 1e-6, name  # timm cuts at an absolute 2


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


def shuffled_patches(images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The same 8×8 patches at other places."""
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)[:, :, order]  # (B, C, patches, 8, 8)
    return patches.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)


@pytest.mark.parametrize("pos_embed", ["none", "learn", "sincos", "rope"])
def test_the_places_of_patches_matter_unless_there_are_no_positions(pos_embed):
    net = VisionTransformer(**SIZES, pos_embed=pos_embed, reg_tokens=1).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(10)
    images = torch.randn(2, 3, 32, 32)
    moved = shuffled_patches(images, torch.randperm(16))
    if pos_embed == "none":
        assert_close(net(moved), net(images), rtol=0, atol=1e-5)
    else:
        assert (net(moved) - net(images)).abs().max() > 1e-4
    assert torch.equal(shuffled_patches(images, torch.arange(16)), images)


@pytest.mark.parametrize("pos_embed", ["none", "sincos", "rope"])
def test_positions_that_are_not_learned_are_no_part_of_the_state(pos_embed):
    net = VisionTransformer(**SIZES, pos_embed=pos_embed)
    learned = VisionTransformer(**SIZES)
    assert set(learned.state_dict()) - set(net.state_dict()) == {"pos_embed"}
    assert net.no_embed_class


def test_fixed_positions_are_sines_and_cosines_of_row_and_column():
    positions = VisionTransformer(**SIZES, pos_embed="sincos").pos_embed.view(4, 4, 48)
    assert_close(positions[1, 3, 0], torch.tensor(1.0).sin())  # the first wave of the row
    assert_close(positions[1, 3, 12], torch.tensor(3.0).sin())  # the first wave of the column
    assert positions.flatten(0, 1).unique(dim=0).shape[0] == 16


@pytest.mark.parametrize(
    "options",
    [
        *({"affinity": affinity, "window": 3} for affinity in AFFINITIES),
        *({"affinity": affinity, "normaliser": "hard"} for affinity in AFFINITIES),
        *({"affinity": affinity, "normaliser": "top_k", "top_k": 3} for affinity in AFFINITIES),
        {"pos_embed": "rope", "window": 1},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
def test_a_network_of_any_form_learns_in_bfloat16_autocast_too(options):
    net = VisionTransformer(**SIZES, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    assert all(block.attn.qkv.weight.grad.abs().max() > 0 for block in net.blocks)


def test_averaged_weights_keep_the_window():
    net = VisionTransformer(**SIZES, window=3)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(3):
        average.update_parameters(net)
    images = torch.randn(1, 3, 32, 32)
    assert_close(average(images), net(images))


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_parameters_of_affinities_are_not_decayed_and_those_not_decayed_exist(affinity):
    net = VisionTransformer(**SIZES, reg_tokens=2, affinity=affinity, global_pool="map")
    own = {f"blocks.1.attn.affinity.{name}" for name, _ in net.blocks[1].attn.affinity.named_parameters()}
    assert own <= net.no_weight_decay()
    assert net.no_weight_decay() <= dict(net.named_parameters()).keys()
    if affinity == "cosine":
        assert own == {"blocks.1.attn.affinity.log_temperature"}


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
        ({"global_pool": "max"}, "global_pool must be one of 'token', 'avg', 'map', '', got 'max'"),
        ({"class_token": False}, "global_pool='token' needs class_token=True"),
        ({"stem": "con"}, "stem must be one of linear, conv, got 'con', did you mean 'conv'"),
        ({"pos_embed": "rop"}, "pos_embed must be one of learn, sincos, rope, none, got 'rop', did you mean 'rope'"),
        ({"pos_embed": "rope", "embed_dim": 24}, "to be a multiple of 4, got 6"),
        ({"affinity": "cosin"}, "got 'cosin', did you mean 'cosine'"),
        ({"pos_embed": "sincos", "embed_dim": 46, "num_heads": 2}, "embed_dim to be a multiple of 4, got 46"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\), got 1.0"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate must be in \[0, 1\), got -0.1"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ({"pos_embed": "rope", "num_heads": 0}, "got dim=48, num_heads=0"),
        ({"window": 5}, "window must be odd and at most the grid of 4x4 patches, got 5"),
        ({"stem": "conv", "img_size": 30, "patch_size": 6}, "power of two, got 6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        VisionTransformer(**(SIZES | options))
