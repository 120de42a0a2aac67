import copy
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vit_attn
from tests.networks import EACH_FAMILY, IMAGES, built
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.summary import summarize
from vit_attn.data import Coins
from vit_attn.errors import UserError
from vit_attn.explore.show import AttentionPage
from vit_attn.inference.given_pictures import given_pictures
from vit_attn.inference.module_card import Preprocessing, describe_module
from vit_attn.inference.network import TrainedNetwork, open_network

COINS = "vit_attn_coins_patch4_32"
GREY = {"mean": 0.5, "std": 0.25}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return Coins("test")[0][0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def network() -> TrainedNetwork:
    return open_network(COINS)


def data_of(page: AttentionPage) -> dict:
    """What the page has inside."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.page.html)[1])


def index_of(page: AttentionPage) -> dict:
    return data_of(page)["steps"]["0"]["index"]


@EACH_FAMILY
def test_a_network_of_any_library_is_shown_with_its_own_prediction(family: str):
    net = built(family)
    shown = vit_attn.show(net, IMAGES, **GREY, img_size=32)
    with torch.no_grad():
        chances, classes = logits_of(net(IMAGES)).softmax(dim=-1).max(dim=-1)
    found = [each["top"][0] for each in index_of(shown)["images"]]
    assert [name for name, _ in found] == [f"class {index}" for index in classes.tolist()]
    np.testing.assert_allclose([chance for _, chance in found], chances.numpy(), atol=1e-5)
    assert [each["label"] for each in index_of(shown)["images"]] == [None] * 3


def test_a_picture_of_any_kind_is_the_same_to_the_network(tmp_path: Path, pixels: np.ndarray, network: TrainedNetwork):
    file, picture = tmp_path / "coins.png", Image.fromarray(pixels)
    picture.save(file)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    normalized = network.normalize([pixels], torch.device("cpu"))
    kinds = [file, str(file), picture, pixels, channels_first, normalized, normalized[0], channels_first[None]]
    expected = given_pictures(network, [*kinds, [pixels, normalized]])
    assert (expected.images == channels_first).all()
    torch.testing.assert_close(expected.normalized, normalized.expand(10, -1, -1, -1))
    assert expected.names[:3] == ["coins.png", "coins.png", "picture 3"]
    assert expected.note == ""
    with Image.open(file) as opened:
        assert given_pictures(network, opened).names == ["coins.png"]
        assert (np.array(opened) == pixels).all()  # it is not closed


def test_a_picture_of_another_size_is_fitted_and_a_grey_one_is_taken(network: TrainedNetwork):
    large = np.random.default_rng(0).integers(0, 256, (50, 90), dtype=np.uint8)
    assert given_pictures(network, [large, large[..., None], np.stack([large] * 4, axis=-1)]).images.shape[1:] == (
        3,
        32,
        32,
    )


def test_pixels_that_no_picture_has_are_clipped_and_that_is_said(network: TrainedNetwork):
    shown = vit_attn.show(network.net, torch.full((1, 3, 32, 32), 9.0))
    assert index_of(shown)["note"].startswith("100% of the pixels lie outside [0, 1]")


def test_the_page_has_the_maps_that_python_computes(pixels: np.ndarray, network: TrainedNetwork):
    shown = vit_attn.show(COINS, pixels)
    data, images = data_of(shown), network.normalize([pixels], torch.device("cpu"))
    assert data["run"] == COINS
    assert list(data["steps"]) == ["0"]
    index = index_of(shown)
    (summary,) = summarize(network.net, images)
    (image,) = index["images"]
    assert image["top"][0][0] == network.class_name(summary.predicted)
    np.testing.assert_allclose(image["target_rows"]["relevance"][0], summary.relevance, rtol=1e-3, atol=1e-6)
    assert len(image["targets"]) == 3
    assert index["relevance"] is True
    assert len(index["head_measures"]["entropy"]) == len(index["layers"]) == 3
    assert {"relevance", "rollout", "legrad"} <= {each["name"] for each in index["methods"]}
    assert image["queries_keys"] is True
    assert "judged" not in index


@pytest.mark.parametrize(
    ("options", "view"),
    [
        ({}, ""),
        ({"query": "2,3"}, "&query=11"),
        ({"query": "CLS"}, "&query=0"),
        ({"query": 64}, "&query=64"),
        ({"target": 7}, "&target=plus"),
        ({"target": "plus"}, "&target=plus"),
    ],
)
def test_query_and_target_are_the_first_view(options: dict, view: str, pixels: np.ndarray):
    shown = vit_attn.show(COINS, pixels, **options)
    assert data_of(shown)["view"] == f"run={COINS}&step=0&image=1{view}"
    if "target" in options:
        (image,) = index_of(shown)["images"]
        assert image["targets"][2] == "plus"
        assert len(image["target_rows"]["relevance"]) == 3


def test_names_of_classes_and_files_cannot_leave_the_page(tmp_path: Path, pixels: np.ndarray):
    file = tmp_path / "<script>alert\x1b[2J&quot;.png"
    Image.fromarray(pixels).save(file)
    hostile = [f'</script><script>alert({i})</script>"&quot;\x1b[2J' for i in range(10)]
    shown = vit_attn.show(COINS, file, class_names=hostile)
    assert index_of(shown)["images"][0]["name"] == file.name
    assert "<script>alert" not in shown.page.html
    assert index_of(shown)["images"][0]["top"][0][0] in hostile
    assert "\x1b" not in repr(shown)
    frame = shown._repr_html_()
    (srcdoc,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(srcdoc) == shown.page.html
    assert frame.count("<iframe") == 1
    assert not re.search(r"<(script|b)\b", re.sub(r'srcdoc="[^"]*"', "", frame))


def test_outside_of_a_notebook_it_says_what_it_is_and_writes_a_file(tmp_path: Path, pixels: np.ndarray):
    shown = vit_attn.show(COINS, [pixels] * 5)
    assert repr(shown).startswith(f"AttentionPage of {COINS}: picture 1: block (100%); picture 2: ")
    assert "picture 3: block (100%) and 2 more; 0." in repr(shown)
    path = shown.save(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == shown.page.html


def test_the_network_is_left_as_it_was(pixels: np.ndarray, network: TrainedNetwork):
    net = copy.deepcopy(network.net).train()
    state = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    vit_attn.show(net, pixels, compared=1)
    assert all(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    torch.testing.assert_close(net.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), random)


def test_maps_of_so_many_pictures_are_compared_at_the_stated_number_of_forwards(pixels: np.ndarray, network):
    images = []
    hook = network.net.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    vit_attn.show(network.net, [pixels] * 3)
    plain, images[:] = sum(images), []
    shown = vit_attn.show(network.net, [pixels] * 3, compared=2)
    hook.remove()
    assert 2 * 135 <= sum(images) - plain <= 2 * 145
    assert index_of(shown)["judged"]["images"] == 2
    assert [bool(each["judged"]) for each in index_of(shown)["images"]] == [True, True, False]


def nan_network() -> nn.Module:
    net = timm.create_model(COINS)
    nn.init.constant_(net.head.bias, torch.nan)
    return net


class Wrapper(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)


ZEROS = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "image", "options", "message"),
    [
        (lambda: "vit_attn_coin_patch4_32", ZEROS, {}, "did you mean 'vit_attn_coins_patch4_32'"),
        (lambda: Wrapper(timm.create_model(COINS)), ZEROS, {}, "Wrapper only wraps the network: use its .net"),
        (lambda: timm.create_model("resnet18"), ZEROS, {}, "ResNet has no attention modules"),
        (lambda: built("torchvision vit"), ZEROS, {}, "does not say how its images are normalised: give mean=(…)"),
        (lambda: built("ours"), ZEROS, {"mean": 0.5, "std": 0.0}, "preprocessing.std must be above 0"),
        (lambda: built("ours"), ZEROS, {"mean": (0.5, 0.5), "std": 0.2}, "a mean of 2 channels"),
        (lambda: built("ours"), ZEROS, {**GREY, "img_size": (32, 0)}, "img_size must be the side of the images"),
        (lambda: built("ours"), ZEROS, {**GREY, "img_size": 48}, "VisionTransformer does not take images"),
        (nan_network, ZEROS, {}, "picture 1: the network gives NaN or infinity"),
        (lambda: COINS, [], {}, "no picture was given"),
        (lambda: COINS, None, {}, "picture 1 must be a file, a PIL image, uint8 pixels"),
        (lambda: COINS, "none.png", {}, "none.png cannot be read as an image"),
        (lambda: COINS, ZEROS / 255, {}, "picture 1 must be uint8 pixels (height, width, 3), got float64"),
        (lambda: COINS, [ZEROS, ZEROS[:, :, :2]], {}, "picture 2 must be uint8 pixels"),
        (lambda: COINS, torch.zeros(1, 32, 32), {}, "a tensor must be (3, height, width), got (1, 32, 32)"),
        (lambda: COINS, torch.full((3, 32, 32), torch.nan), {}, "the images hold NaN"),
        (lambda: COINS, [torch.zeros(3, 32, 32), torch.zeros(3, 8, 8)], {}, "must be of one size"),
        (lambda: COINS, ZEROS, {"query": "9,1"}, "the query must be a patch in rows 1..8"),
        (lambda: COINS, ZEROS, {"target": 10}, "the target must be a class in 0..9, got [10]"),
        (lambda: COINS, ZEROS, {"target": "pluss"}, "no class 'pluss', did you mean 'plus'?"),
        (lambda: COINS, ZEROS, {"target": 1, "query": 1}, "leave out query or target"),
        (lambda: COINS, ZEROS, {"max_megabytes": 0.3}, "this picture would take 0.4 MB without queries and keys"),
    ],
)
def test_mistakes_are_told_in_one_line(make, image, options: dict, message: str):
    with pytest.raises(UserError) as error:
        vit_attn.show(make(), image, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_class_names_are_the_networks_own():
    ours = describe_module(timm.create_model("vit_tiny_patch16_224"), Preprocessing())
    assert ours.class_name(281) == "tabby"
    theirs = built("hugging face vit")
    theirs.config.id2label = dict(enumerate("vwxyz"))
    assert describe_module(theirs, Preprocessing(**GREY)).card.label_names == tuple("vwxyz")
    assert describe_module(theirs, Preprocessing(**GREY, class_names="abcde")).card.label_names == tuple("abcde")
    assert describe_module(built("hugging face vit"), Preprocessing(**GREY)).card.label_names is None


def test_the_package_is_imported_without_torch_until_something_is_shown():
    code = "import sys, vit_attn; assert 'show' in dir(vit_attn); assert 'torch' not in sys.modules; vit_attn.shows"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'vit_attn' has no attribute 'shows'" in done.stderr
