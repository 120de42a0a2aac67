import contextlib

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelThingsBlock
from torch import nn
from torch.nn.modules import module as module_globals
from torch.testing import assert_close

from vit_attn.attention_maps import raw_rows, record, rollout
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer
from vit_attn.model.attention import NORMALISERS
from vit_attn.model.scores import AFFINITIES

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 3, "num_heads": 4}


@pytest.fixture
def net() -> VisionTransformer:
    net = VisionTransformer(**SIZES, reg_tokens=2).eval()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.weight.mul_(20)
    return net


def test_it_records_the_weights_that_each_layer_used(net):
    images, expected = torch.randn(3, 3, 32, 32), []
    with contextlib.ExitStack() as hooks:
        for block in net.blocks:
            hook = block.attn.register_forward_hook(
                lambda attn, args, kwargs, _: expected.append(attn.weights(*args, **kwargs)), with_kwargs=True
            )
            hooks.callback(hook.remove)
        with record(net) as recording:
            net(images)
    assert len(recording) == 3
    assert [layer.name for layer in recording] == ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]
    for layer, weights in zip(recording, expected, strict=True):
        assert_close(layer.weights(), weights)
        assert weights.max() > 50 * weights.min()


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"affinity": affinity, "normaliser": normaliser, "top_k": 3}
            for affinity in AFFINITIES
            for normaliser in NORMALISERS
        ),
        *({"affinity": affinity, "normaliser": "hard", "window": 3} for affinity in AFFINITIES),
        *({"affinity": affinity, "window": 3} for affinity in AFFINITIES),
        {"pos_embed": "rope"},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
def test_every_form_of_attention_is_recorded_like_the_default(options):
    net = VisionTransformer(**SIZES, reg_tokens=2, **options).eval()
    images, expected = torch.randn(2, 3, 32, 32), []
    for block in net.blocks:
        with torch.no_grad():
            block.attn.query_weights.mul_(20)
            block.attn.key_weights.mul_(20)
        block.attn.register_forward_hook(
            lambda attn, args, kwargs, _: expected.append(attn.weights(*args, **kwargs)), with_kwargs=True
        )
    with record(net, gradients=True) as recording:
        net(images)
    for layer, weights in zip(recording, expected, strict=True):
        assert_close(layer.weights(), weights)
        assert_close(layer.weights() @ layer.calls[0].v, layer.calls[0].output)


@pytest.mark.parametrize("name", ["ours", "siglip"])
def test_a_pool_by_attention_is_recorded_beside_the_layers(name):
    if name == "ours":
        net = VisionTransformer(**SIZES, reg_tokens=2, global_pool="map").eval()
    else:
        net = timm.create_model("vit_base_patch16_siglip_224", depth=2, img_size=64).eval()
    size, expected = net.patch_embed.img_size[0], []
    net.attn_pool.register_forward_hook(lambda pool, args, _: expected.append(args[0]))
    with torch.no_grad(), record(net) as recording:
        net(9 * torch.randn(3, 3, size, size))
    assert len(recording) == len(net.blocks)
    assert recording[-1].name == f"blocks.{len(net.blocks) - 1}.attn"
    assert recording.pool.name == "attn_pool"
    weights = recording.pool.weights()
    assert weights.shape[2:] == (1, 16)
    if name == "ours":
        assert_close(weights, net.attn_pool.weights(expected[0]))
    row = recording.query_rows()  # another one for each image, and nothing on what is not pooled
    assert_close(row[..., net.num_prefix_tokens :], weights.mean(dim=1))
    assert row[..., : net.num_prefix_tokens].sum() == 0
    assert_close(rollout(recording), row @ rollout(recording, range(recording.num_tokens)))
    assert_close(raw_rows(recording).sum(dim=-1), torch.ones(3, 1))


def test_forwards_are_joined_along_the_batch(net):
    images = torch.randn(5, 3, 32, 32)
    with record(net) as whole:
        net(images)
    with record(net) as parts:
        net(images[:2])
        net(images[2:])
    for layer, same in zip(whole, parts, strict=True):
        assert_close(layer.weights(), same.weights())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "eva02_tiny_patch14_224"])
def test_it_records_timms_networks_untouched(name):
    net = timm.create_model(name, depth=2) if "eva" not in name else timm.create_model(name)
    size = net.patch_embed.img_size[0]
    with record(net.eval()) as recording:
        net(torch.randn(1, 3, size, size))
    weights = recording[-1].weights()
    assert weights.shape[-1] == recording.num_tokens
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_weights_are_float32_under_autocast(net):
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16), record(net) as recording:
        net(images)
        weights = recording[0].weights()
    assert recording[0].calls[0].q.dtype == torch.bfloat16
    assert weights.dtype == torch.float32
    assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


class Masked(nn.Module):
    """One attention call with a mask, in a network that says how its tokens are laid out."""

    class Attention(nn.Module):
        def forward(self, x, **options):
            return torch.nn.functional.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True, **options)

    def __init__(self):
        super().__init__()
        self.attn, self.patch_embed = self.Attention(), nn.Identity()
        self.num_prefix_tokens, self.global_pool, self.patch_embed.grid_size = 1, "token", (2, 3)

    def forward(self, x, **options):
        return self.attn(x, **options)


@pytest.mark.parametrize("form", ["boolean mask", "additive mask", "causal", "scale"])
def test_masks_scales_and_grouped_heads_give_the_weights_that_make_the_output(form):
    seen = torch.rand(7, 7) > 0.4
    seen |= torch.eye(7, dtype=torch.bool)
    options = {
        "boolean mask": {"attn_mask": seen},
        "additive mask": {"attn_mask": torch.randn(7, 7)},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.9},
    }[form]
    net, x = Masked(), torch.randn(2, 4, 7, 6)
    with record(net) as recording:
        output = net(x, **options)
    values = x[:, :2].repeat_interleave(2, dim=1)
    assert_close(recording[0].weights() @ values, output)


def test_nothing_is_left_behind(net):
    def state():
        everywhere = {
            name: each for name, each in vars(module_globals).items() if "_global_" in name and "hook" in name
        }
        hooks = {name: len(each) for name, each in everywhere.items() if isinstance(each, dict)}
        own = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training, set(vars(m))) for m in net.modules()]
        return hooks, own, torch.get_rng_state().tolist(), [p.grad for p in net.parameters()]

    before = state()
    with record(net) as recording:
        net(torch.ones(1, 3, 32, 32))
    with pytest.raises(ZeroDivisionError), record(net):
        _ = 1 / 0
    assert state() == before
    net(torch.ones(1, 3, 32, 32))
    assert len(recording.forwards) == 1


def test_a_forward_that_fails_tells_its_own_error_and_is_not_recorded(net):
    with record(net) as recording:
        with pytest.raises(AssertionError, match="Input height"):
            net(torch.randn(1, 3, 16, 16))
        net(torch.randn(1, 3, 32, 32))
    assert len(recording.forwards) == 1


def test_the_output_is_the_same_while_recording(net):
    images = torch.randn(2, 3, 32, 32)
    plain = net(images)
    with record(net):
        assert torch.equal(net(images), plain)


def test_a_compiled_network_is_recorded_eagerly():
    net = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=32).eval()  # ours carries the tests' shape checks
    net.compile(backend="eager")
    images = torch.randn(1, 3, 32, 32)
    plain = net(images)
    with record(net) as recording:
        assert_close(net(images), plain)
    assert len(recording) == 3


UNSEEN = {
    "cait_xxs24_224": ({"depth": 2}, r"attention in blocks\.0\.attn changes its weights .* as talking heads do"),
    "xcit_nano_12_p16_224": ({"depth": 2}, "Xcit does not say how its tokens are laid out"),
    "twins_svt_small": ({}, r"got \(1, 64, 2, 49, 32\) in blocks\.0\.0\.attn"),
}


@pytest.mark.parametrize(("name", "case"), UNSEEN.items(), ids=UNSEEN.keys())
def test_attention_that_was_not_seen_whole_is_an_error_that_names_it(name, case):
    options, message = case
    net = timm.create_model(name, **options).eval()
    with torch.no_grad(), pytest.raises(UserError, match=message) as error, record(net):
        net(torch.randn(1, 3, 224, 224))
    assert "attn" in str(error.value) or "tokens are laid out" in str(error.value)


def test_a_network_without_attention_is_refused():
    with (
        pytest.raises(UserError, match=r"Linear has no attention modules to record, .* as MyAttention"),
        record(nn.Linear(2, 2)),
    ):
        pass


PARTIAL = {
    "two attentions a module": ("vit_tiny_patch16_224", {"attn_layer": "diff"}, 224, "more than once"),
    "attention in parallel": ("vit_tiny_patch16_224", {"block_fn": ParallelThingsBlock}, 224, "is no chain of layers"),
}


@pytest.mark.parametrize(("name", "options", "size", "message"), PARTIAL.values(), ids=PARTIAL.keys())
def test_what_cannot_be_recorded_whole_is_refused(name, options, size, message):
    net = timm.create_model(name, depth=1, **options).eval()
    with pytest.raises(UserError, match=message), record(net):
        net(torch.randn(1, 3, size, size))


def test_images_of_any_size_that_a_network_takes_have_their_own_grid():
    net = timm.create_model("vit_tiny_patch16_224", depth=1, dynamic_img_size=True).eval()
    with record(net) as recording:
        net(torch.randn(1, 3, 160, 96))
        with pytest.raises(UserError, match=r"a recording has one grid, got images of \(10, 6\) and \(14, 14\)"):
            net(torch.randn(1, 3, 224, 224))
    assert recording.grid_size == (10, 6)
    assert recording[0].weights().shape[-1] == 61


def test_attention_outside_the_attention_modules_is_refused(net):
    class Mixer(nn.Module):
        def forward(self, x, _places):
            return torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])[0]

    net.blocks.append(Mixer())
    with pytest.raises(UserError, match="attends outside its attention modules"), record(net):
        net(torch.randn(1, 3, 32, 32))


def test_an_empty_recording_says_so(net):
    with record(net) as recording:
        pass
    with pytest.raises(UserError, match="nothing was recorded"):
        len(recording)


def test_attention_dropout_is_refused():
    net = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, attn_drop_rate=0.5)
    with pytest.raises(UserError, match=r"attention dropout is on \(p=0.5\)"), record(net):
        net(torch.randn(1, 3, 32, 32))
