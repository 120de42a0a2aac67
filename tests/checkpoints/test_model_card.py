import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from vit_attn.checkpoints.io import find_card, read_card
from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard, card_from_state
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.inference.network import open_network
from vit_attn.task import Classifier

OPTIONS = {"embed_dim": 16, "depth": 1, "num_heads": 2}
OLD_STATE = {
    "dataset": "pets",
    "class_names": ["cat", "dog", "owl"],
    "img_size": [16, 24],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.1],
    "crop": 0.875,
    "bits": 12,
}
"""What version 0.1 kept of the data in a checkpoint."""
OLD_HEADER = {
    "architecture": '"vit_attn_tiny_patch4_32"',
    "options": '{"embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3, "img_size": [16, 24], "in_chans": 1}',
    "class_names": '["cat", "dog", "owl"]',
    "mean": "[0.5]",
    "std": "[0.2]",
    "img_size": "[16, 24]",
    "crop_pct": "0.875",
    "bits": "null",
    "format": "pt",
}
"""What version 0.1 kept of a network in an export."""
CARD = ModelCard(
    architecture="vit_attn_tiny_patch4_32",
    model_args=OPTIONS | {"num_classes": 3, "img_size": (16, 24), "in_chans": 1},
    label_names=("cat", "dog", "owl"),
    input_size=(1, 16, 24),
    mean=(0.5,),
    std=(0.2,),
    crop_pct=0.875,
)


def build() -> torch.nn.Module:
    return timm.create_model(CARD.architecture, **CARD.model_args).eval()


def test_an_old_checkpoint_gives_its_card_and_opens(tmp_path: Path):
    task = Classifier(arch_options=OPTIONS, num_classes=3, img_size=(16, 24))
    path = tmp_path / "old.ckpt"
    checkpoint = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), "ImageData": OLD_STATE}
    torch.save(checkpoint, path)
    card = read_card(path)
    assert card == ModelCard(
        architecture="vit_attn_tiny_patch4_32",
        model_args=OPTIONS | {"num_classes": 3, "img_size": (16, 24), "in_chans": 3},
        label_names=("cat", "dog", "owl"),
        input_size=(3, 16, 24),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        crop_pct=0.875,
        dataset="pets",
        bits=12,
    )
    network, images = open_network(str(path)), torch.randn(2, 3, 16, 24)
    assert network.card == card
    with torch.no_grad():
        assert torch.equal(network.net(images), task.eval()(images))


def test_a_checkpoint_of_before_crop_and_bits_has_their_defaults():
    state = {name: value for name, value in OLD_STATE.items() if name not in ("crop", "bits")}
    card = card_from_state({"ImageData": state})
    assert card is not None
    assert (card.crop_pct, card.bits, card.architecture) == (1.0, 16, "")


def test_the_data_module_takes_old_and_new_states_alike(picture_folder):
    data = ImageData("folder", str(picture_folder({"cat": 9, "dog": 9, "owl": 9})), img_size=16)
    old = OLD_STATE | {"img_size": [16, 16]}
    data.load_state_dict(old)
    assert (data.statistics.mean, data.cache.bits) == ((0.5, 0.4, 0.3), 12)
    state = data.state_dict()
    assert state == {
        "dataset": "folder",
        "label_names": ["cat", "dog", "owl"],
        "input_size": [3, 16, 16],
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.1],
        "crop_pct": 1.0,
        "bits": 12,
    }
    data.load_state_dict(state | {"mean": [0.1, 0.1, 0.1]})
    assert data.statistics.mean == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("has_bits", [True, False])
def test_an_old_export_gives_its_card_and_opens(has_bits: bool, tmp_path: Path):
    net, path = build(), tmp_path / "old.safetensors"
    header = OLD_HEADER if has_bits else {name: text for name, text in OLD_HEADER.items() if name != "bits"}
    save_file(net.state_dict(), path, header)
    network, images = open_network(str(path)), torch.randn(2, 1, 16, 24)
    assert network.card == (CARD if has_bits else ModelCard(**vars(CARD) | {"bits": 16}))
    with torch.no_grad():
        assert torch.equal(network.net(images), net(images))


def test_an_export_and_its_folder_give_the_same_card(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file(build().state_dict(), path, CARD.metadata())
    assert find_card(path) == find_card(tmp_path) == CARD
    assert open_network(str(tmp_path)).card == CARD


def test_a_name_of_timm_gives_the_card_of_its_pretrained_cfg():
    card = find_card("vit_attn_cifar10_patch4_32")
    assert card is not None
    assert (card.architecture, card.input_size, card.crop_pct) == ("vit_attn_cifar10_patch4_32", (3, 32, 32), 1.0)
    assert card.label_names is not None
    assert card.label_names[::9] == ("airplane", "truck")
    assert card.mean == (0.4914, 0.4822, 0.4465)
    tagged = find_card("vit_small_patch16_224.augreg_in21k_ft_in1k")
    assert tagged is not None
    assert (tagged.architecture, tagged.mean, tagged.crop_pct) == ("vit_small_patch16_224", (0.5, 0.5, 0.5), 0.9)
    with pytest.raises(UserError, match=r"the weights of vit_small_patch16_224\.abc cannot be had"):
        find_card("vit_small_patch16_224.abc")


def test_what_has_no_card_gives_none(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "bare.pth")
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors", {"made": "by another program"})
    for source in ("bare.pth", "bare.safetensors", "none.ckpt", "."):
        assert find_card(tmp_path / source) is None
    assert find_card("https://example.org/a.safetensors") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": "[NaN]"}, r"its header.mean must be finite numbers"),
        ({"std": "[0.0]"}, r"its header.std must be above 0"),
        ({"std": "[0.1, 0.2]"}, r"a mean of 1 channels and a standard deviation \(std\) of 2"),
        ({"crop_pct": "0"}, r"its header.crop_pct must be in \(0, 1\], got 0"),
        ({"bits": "11"}, r"its header.bits must be one of 8, 10, 12, 14, 16, or none, got 11"),
        ({"label_names": '"cat"'}, r"its header.label_names must be names"),
        ({"input_size": "[16, 24]"}, r"its header.input_size must be channels, and height and width"),
        ({"input_size": "[3, 16, 24]"}, r"its header has an input_size of 3 channels and a mean of 1"),
        ({"dataset": "3"}, r"its header.dataset must be a name, got 3"),
        ({"architecture": "3"}, r"its header is corrupt: architecture or model_args is of another type"),
        ({"model_args": "[]"}, r"its header is corrupt"),
        ({"architecture": '"local-dir:/tmp"'}, r"its network 'local-dir:/tmp' is not in timm's registry"),
        ({"model_args": '{"depth": 1e9}'}, r"an option that is not allowed, depth=1000000000.0"),
        ({"model_args": '{"checkpoint_path": "a"}'}, r"an option that is not allowed, checkpoint_path='a'"),
        ({"class_names": '["cat"]'}, r"is not a file of `vit-attn export`"),
        ({"mean": "[0.5"}, r"is not a file of `vit-attn export`"),
    ],
)
def test_an_invalid_field_of_an_export_is_refused_by_name(changes: dict[str, str], message: str, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path, CARD.metadata() | changes)
    for read in (find_card, read_card):
        with pytest.raises(UserError, match=rf"a\.safetensors.*{message}"):
            read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["cat"]}, "missing or unknown: class_names"),
        ({"label_names": None}, "ImageData.label_names must be names, got None"),
        ({"input_size": [1, 16, True]}, "ImageData.input_size must be channels"),
        ({"input_size": [16, 24]}, "ImageData.input_size must be channels"),
        ({"bits": True}, "ImageData.bits must be one of"),
    ],
)
def test_an_invalid_state_of_the_data_is_refused_by_name(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        card_from_state({DATA_KEY: CARD.data_state() | changes})


@pytest.mark.parametrize("missing", ["dataset", "img_size", "mean"])
def test_an_old_state_that_lacks_a_field_is_refused(missing: str):
    state = {name: value for name, value in OLD_STATE.items() if name != missing}
    with pytest.raises(UserError, match="missing or unknown: "):
        card_from_state({DATA_KEY: state})


def test_every_field_survives_a_file(tmp_path: Path):
    card = ModelCard(**vars(CARD) | {"dataset": "pets", "bits": 10, "label_names": None})
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", card.metadata())
    assert read_card(tmp_path / "a.safetensors") == card
    assert json.loads(card.metadata()["input_size"]) == [1, 16, 24]
