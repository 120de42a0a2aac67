"""Networks that are given patches with their positions, in any order and with padding, are recorded as if by images."""

import re
from typing import Any

import pytest
import timm
import torch
import transformers
from timm.models.naflexvit import batch_patchify
from torch import Tensor, nn
from torch.testing import assert_close

from vit_attn.attention_maps import edges, knockout, record, relevance, rollout
from vit_attn.attention_maps.checks import check_images
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.summary import summarize
from vit_attn.errors import UserError

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "patch_size": 4,
    "num_patches": 16,
}
SIGLIP2 = ("Siglip2VisionModel", "Siglip2ForImageClassification")


def siglip2(name: str, implementation: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    vision = transformers.Siglip2VisionConfig(**VISION)
    config = vision if name == "Siglip2VisionModel" else transformers.Siglip2Config(vision_config=vision, num_labels=5)
    config._attn_implementation = implementation
    net = kind(config).eval()
    with torch.no_grad():
        for module in net.modules():
            if type(module).__name__ == "Siglip2Attention":
                module.q_proj.weight.mul_(4)
    return net


def siglip2_inputs(padding: int = 3) -> dict[str, Tensor]:
    count = 6 + padding
    return {
        "pixel_values": torch.randn(2, count, 3 * 4 * 4),
        "pixel_attention_mask": (torch.arange(count) < 6).int().expand(2, -1),
        "spatial_shapes": torch.tensor([[2, 3], [2, 3]]),
    }


@pytest.mark.parametrize("name", SIGLIP2)
def test_siglip_2_is_recorded_without_its_padding(name: str):
    net, inputs = siglip2(name), siglip2_inputs()
    with record(net, gradients=True) as recording:
        net(**inputs)
    with torch.no_grad():
        maps = siglip2(name, "eager")(**inputs, output_attentions=True).attentions
    assert recording.grid_size == (2, 3)
    assert recording.patch_size == (4, 4)
    assert len(recording) == 2
    for layer, expected in zip(recording, maps, strict=True):
        assert_close(layer.weights(), expected[..., :6, :6])
        assert expected[..., 6:].max() == 0
    with torch.no_grad(), record(net) as plain:
        net(**inputs)
    assert_close(recording.query_rows(), plain.query_rows())
    if name == "Siglip2ForImageClassification":
        assert_close(recording.query_rows(), torch.full((1, 1, 6), 1 / 6))
    else:
        assert recording.pool is not None
        assert recording.pool.weights().shape == (2, 2, 1, 6)
        assert_close(recording.pool.weights().sum(dim=-1), torch.ones(2, 2, 1))


def test_a_classifier_that_also_reads_padding_has_no_default_query():
    net = siglip2("Siglip2ForImageClassification")

    class ReadsAll(nn.Module):
        """Mask that the encoder sees and the mean over the tokens does not."""

        def forward(self, hidden: Tensor) -> Tensor:
            return net.classifier(hidden.mean(dim=1))

    net.forward = lambda pixel_values, pixel_attention_mask, spatial_shapes: ReadsAll()(
        net.vision_model(pixel_values, pixel_attention_mask, spatial_shapes).last_hidden_state
    )
    with record(net, gradients=True) as recording:
        net(**siglip2_inputs())
    with pytest.raises(UserError, match="reads tokens that only pad the images: name the queries"):
        recording.query_rows()


def test_padding_that_is_attended_to_is_refused():
    net, inputs = siglip2("Siglip2ForImageClassification"), siglip2_inputs()
    del inputs["pixel_attention_mask"]
    with pytest.raises(UserError, match="attends to tokens that only pad the images: call the network with the mask"):
        with record(net):
            net(**inputs)


@pytest.mark.parametrize("name", SIGLIP2)
def test_images_for_a_network_that_takes_patches_are_refused_with_what_to_call(name: str):
    net = siglip2(name)
    with pytest.raises(UserError, match=rf"{name} needs pixel_attention_mask, spatial_shapes beside .*net\(\*\*inputs"):
        with record(net):
            net(torch.randn(2, 3, 8, 12))


def test_a_dictionary_that_should_be_keywords_is_refused_with_what_to_call():
    net = siglip2("Siglip2ForImageClassification")
    with pytest.raises(UserError, match=r"needs pixel_attention_mask, spatial_shapes|unpack it, net\(\*\*inputs\)"):
        with record(net):
            net(siglip2_inputs())


def test_images_with_different_grids_are_refused():
    net, inputs = siglip2("Siglip2VisionModel"), siglip2_inputs()
    inputs["spatial_shapes"] = torch.tensor([[2, 3], [3, 2]])
    with pytest.raises(UserError, match=r"several grids of patches, \(2, 3\), \(3, 2\): record those of one at a time"):
        with record(net):
            net(**inputs)


@pytest.mark.parametrize("name", ["ViTForImageClassification", "DeiTForImageClassificationWithTeacher"])
def test_images_by_keyword_are_recorded_like_images(name: str):
    kind = getattr(transformers, name)
    sizes = {key: size for key, size in VISION.items() if key != "num_patches"} | {"image_size": 8}
    net, images = kind(kind.config_class(**sizes)).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad(), record(net) as expected:
        net(images)
    with torch.no_grad(), record(net) as recording:
        net(**transformers.BatchFeature({"pixel_values": images}))
    assert_close(recording[-1].weights(), expected[-1].weights())
    assert_close(recording.query_rows(), expected.query_rows())


FROM_PATCHES = {
    "naflexvit_base_patch16_gap": "avg",
    "naflexvit_base_patch16_map": "map",
    "naflexvit_so150m2_patch16_reg1_map": "map",
    "naflexvit_base_patch16_radio_v3": "token",
    "gemma4_vit_167m": "avg",
}
GEMMA: dict[str, Any] = {"head_dim": 16, "intermediate_size": 96, "position_embedding_size": 64}


def from_patches(name: str) -> Any:
    """Network of timm's that takes images or patches, with attention far from uniform."""
    torch.manual_seed(0)
    options = GEMMA if "gemma" in name else {"mlp_ratio": 2.0}
    net = timm.create_model(name, img_size=64, depth=2, embed_dim=32, num_heads=2, num_classes=5, **options).eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if re.search(r"(qkv|q_proj.linear|k_proj.linear|head)\.weight", key):
                parameter.normal_(std=0.4)
            elif "gamma" in key:
                parameter.fill_(1.0)
    return net


def patches_of(net: Any, images: Tensor, padding: int = 3) -> dict[str, Tensor]:
    """Patches of images, and padding: behind them, or between them in a random order where the network heeds that."""
    patch, shuffled = 16, hasattr(net, "encoder")
    rows, cols = images.shape[-2] // patch, images.shape[-1] // patch
    given, _ = batch_patchify(images, (patch, patch), channels_last=shuffled or net.embeds.channels_last)
    count = rows * cols
    order = torch.randperm(count) if shuffled else torch.arange(count)
    valid = torch.ones(count + padding, dtype=torch.bool)
    valid[2 if shuffled else count :][:padding] = False
    patches = torch.randn(len(images), count + padding, given.shape[-1])
    patches[:, valid] = given[:, order]
    coordinates = torch.zeros(count + padding, 2, dtype=torch.int64)
    coordinates[valid] = torch.tensor([divmod(index, cols) for index in order.tolist()])
    shared = {"patch_coord": coordinates, "patch_valid": valid}
    return {"patches": patches} | {name: each.expand(len(images), *each.shape) for name, each in shared.items()}


@pytest.mark.parametrize("name", FROM_PATCHES)
def test_patches_are_recorded_like_images(name: str):
    net, images = from_patches(name), torch.randn(2, 3, 32, 48)
    inputs = patches_of(net, images)
    with record(net, gradients=True) as expected:
        logits = net(images)
    with record(net, gradients=True) as recording:
        assert_close(net(inputs), logits, atol=1e-4, rtol=1e-4)
    assert recording.grid_size == (2, 3)
    assert recording.patch_size == (16, 16)
    assert recording.global_pool == expected.global_pool == FROM_PATCHES[name]
    assert token_layout(net, inputs).global_pool == FROM_PATCHES[name]
    for layer, same in zip(recording, expected, strict=True):
        assert_close(layer.weights(), same.weights(), atol=1e-5, rtol=1e-4)
    assert recording[0].weights().max() > 10 * recording[0].weights().median()
    assert_close(recording.query_rows(), expected.query_rows(), atol=1e-5, rtol=1e-4)
    assert_close(rollout(recording), rollout(expected), atol=1e-5, rtol=1e-4)
    assert_close(relevance(recording, 3), relevance(expected, 3), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", FROM_PATCHES)
def test_cuts_of_patches_are_those_of_the_images(name: str):
    net, images = from_patches(name), torch.randn(2, 3, 32, 48)
    inputs, layout = patches_of(net, images), token_layout(net, images)
    cut = edges(layout.num_tokens, range(layout.num_tokens), [layout.num_prefix_tokens + 4])
    with torch.no_grad(), knockout(net, cut):
        expected = net(images)
        assert_close(net(inputs), expected, atol=1e-4, rtol=1e-4)
        assert_close(net(**{"x" if key == "patches" else key: each for key, each in inputs.items()}), net(inputs))
    with torch.no_grad():
        assert (net(images) - expected).abs().max() > 1e-3
    if FROM_PATCHES[name] == "map":
        pool = torch.zeros(1, 6, dtype=torch.bool)
        pool[0, 4] = True
        with torch.no_grad(), knockout(net, pool=pool):
            assert_close(net(inputs), net(images), atol=1e-4, rtol=1e-4)


def test_a_token_that_is_left_with_padding_alone_gives_zeros():
    net, images = from_patches("naflexvit_base_patch16_gap"), torch.randn(2, 3, 32, 48)
    prefix = token_layout(net, images).num_prefix_tokens
    cut = edges(prefix + 6, [prefix + 4], range(prefix + 6))
    with torch.no_grad(), knockout(net, cut, layers=[0]), record(net) as recording:
        net(patches_of(net, images))
    weights = recording[0].weights()
    assert weights[:, :, prefix + 4].abs().max() == 0
    assert_close(weights[:, :, 0].sum(dim=-1), torch.ones(2, 2))


def test_patches_are_summarised_like_images():
    net, images = from_patches("naflexvit_base_patch16_map"), torch.randn(2, 3, 32, 48)
    for found, expected in zip(
        summarize(net, patches_of(net, images)),
        summarize(net, images),
        strict=True,
    ):
        assert found.grid_size == expected.grid_size == (2, 3)
        assert_close(found.rollout, expected.rollout, atol=1e-5, rtol=1e-4)
        assert_close(found.relevance, expected.relevance, atol=1e-5, rtol=1e-3)


def test_siglip_2_is_summarised_from_what_its_processor_returns():
    inputs = siglip2_inputs()
    for summary in summarize(siglip2("Siglip2ForImageClassification"), inputs):
        assert summary.grid_size == (2, 3)
        assert summary.rollout.sum() == pytest.approx(1.0, abs=1e-5)


def test_pixels_cannot_be_deleted_from_patches():
    net = from_patches("naflexvit_base_patch16_gap")
    inputs: Any = patches_of(net, torch.randn(2, 3, 32, 48))
    with pytest.raises(UserError, match="patches are taken by record and summarize only"):
        check_images(net, inputs)


WRONG = {
    "patch_coord must list the patches of all images in the same order": ("patch_coord", (0, [0, 1], [1, 0])),
    "patch_coord must name each patch of 2 rows and 3 columns once": ("patch_coord", (None, [0], [5])),
}


@pytest.mark.parametrize("message", WRONG)
def test_patches_that_are_no_whole_grid_are_refused(message: str):
    net = from_patches("naflexvit_base_patch16_gap")
    inputs = patches_of(net, torch.randn(2, 3, 32, 48), padding=0)
    coordinates = inputs["patch_coord"].clone()
    image, here, there = WRONG[message][1]
    images = slice(None) if image is None else image
    coordinates[images, here] = coordinates[images, there]
    with pytest.raises(UserError, match=message), record(net):
        net(inputs | {"patch_coord": coordinates})


def test_patches_without_positions_are_refused():
    net = from_patches("naflexvit_base_patch16_gap")
    with pytest.raises(UserError, match="takes patches with their positions: call it with patch_coord and patch_valid"):
        with record(net):
            net(torch.randn(2, 6, 768))


def test_a_network_that_needs_more_arguments_says_which():
    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = from_patches("naflexvit_base_patch16_gap")
            self.embeds = self.net.embeds

        def forward(self, images: Tensor, aspect_ratio: Tensor, *, tiles: Tensor) -> Tensor:
            return self.net(images)

    net = Needs()
    with pytest.raises(UserError, match="Needs needs aspect_ratio, tiles beside images"), record(net):
        net(torch.randn(2, 3, 32, 48))
