"""Exports that timm loads as a folder."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_data_config
from torch.testing import assert_close

from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard
from vit_attn.cli import main
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.inference import export_formats
from vit_attn.inference.network import open_network
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier

NAME = "vit_attn_cifar10_patch4_32"
MODEL = f"--model={NAME}"
LABELS = ("cat", "dog", "owl")


def checkpoint(path: Path, arch: str, channels: int, size: tuple[int, int], **options) -> Classifier:
    """Save a trained network with its data; its crop is not that of its architecture."""
    task = Classifier(arch, options, num_classes=3, img_size=size, in_chans=channels).eval()
    torch.nn.init.normal_(task.net.head.weight)
    card = ModelCard("", {}, LABELS, (channels, *size), (0.4,) * channels, (0.3,) * channels, 0.9, dataset="pets")
    state = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), DATA_KEY: card.data_state()}
    torch.save(state, path)
    return task


NETWORKS = {
    "ours": ("vit_attn_tiny_patch4_32", 3, (32, 32), {"embed_dim": 16, "depth": 1, "num_heads": 2}),
    "ours, grey and wide": ("vit_attn_tiny_patch16_224", 1, (16, 32), {"embed_dim": 16, "depth": 1, "num_heads": 2}),
    "timm's": ("vit_tiny_patch16_224", 3, (64, 64), {"embed_dim": 24, "depth": 1, "num_heads": 2}),
    "timm's, grey": ("test_vit", 1, (32, 32), {}),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_timm_loads_a_folder_with_its_classes_and_preprocessing(network: str, tmp_path: Path, capsys):
    arch, channels, size, options = NETWORKS[network]
    task = checkpoint(tmp_path / "a.ckpt", arch, channels, size, **options)
    folder = tmp_path / "new" / "pets"
    assert main(["export", f"--model={tmp_path / 'a.ckpt'}", f"--output={folder}/"]) == 0
    said = capsys.readouterr().out
    assert {each.name for each in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert f"3 classes (cat … owl), images (B, {channels}x{size[0]}x{size[1]}), crop_pct 0.9" in said
    assert f"timm.create_model('local-dir:{folder}', pretrained=True) loads it" in said
    assert ("import vit_attn.model; timm" in said) == (network.startswith("ours"))

    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert isinstance(net, VisionTransformer) == network.startswith("ours")
    images = torch.randn(2, channels, *size)
    with torch.no_grad():
        assert_close(net(images), task(images), rtol=0, atol=0)
    cfg = net.pretrained_cfg
    assert (cfg["architecture"], net.num_classes, cfg["num_classes"]) == (arch, 3, 3)
    assert tuple(cfg["label_names"]) == LABELS
    config = resolve_data_config({}, model=net)
    assert tuple(config["input_size"]) == (channels, *size)
    assert (config["crop_pct"], config["crop_mode"], config["interpolation"]) == (0.9, "center", "bicubic")
    assert (tuple(config["mean"]), tuple(config["std"])) == ((0.4,) * channels, (0.3,) * channels)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)
    assert other.head.weight.shape[0] == 5

    again = open_network(str(folder))
    assert again.card == open_network(str(tmp_path / "a.ckpt")).card
    assert main(["export", f"--model={folder}", f"--output={tmp_path / 'again.pt2'}"]) == 0


def test_a_network_by_name_and_tag_is_a_folder_for_timm(tmp_path: Path):
    options = ["--model=vit_tiny_patch16_224.augreg_in21k", "--weights=none", "--img_size=32"]
    assert main(["export", *options, f"--output={tmp_path}/net/"]) == 0
    net = timm.create_model(f"local-dir:{tmp_path}/net", pretrained=True)
    assert (net.num_classes, net.pretrained_cfg["tag"]) == (21843, "augreg_in21k")
    assert net.patch_embed.img_size == (32, 32)


def test_fine_tuning_starts_from_a_folder(tmp_path: Path):
    arch, channels, size, options = NETWORKS["ours"]
    task = checkpoint(tmp_path / "a.ckpt", arch, channels, size, **options)
    assert main(["export", f"--model={tmp_path / 'a.ckpt'}", f"--output={tmp_path}/net/"]) == 0
    tuned = Classifier(weights=str(tmp_path / "net"), num_classes=3)
    assert (tuned.hparams["arch"], tuned.hparams["arch_options"]) == (arch, options)
    assert torch.equal(tuned.net.head.weight, task.net.head.weight)


def test_a_file_has_a_config_beside_it_unless_there_is_one(tmp_path: Path, capsys):
    path, config = tmp_path / "m.safetensors", tmp_path / "config.json"
    assert main(["export", MODEL, f"--output={path}"]) == 0
    assert f"{config}: import vit_attn.model; timm.create_model('local-dir:{tmp_path}'" in capsys.readouterr().out
    assert json.loads(config.read_text())["label_names"] == list(find_dataset("cifar10").class_names)
    net = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(net.head.weight, timm.create_model(NAME, pretrained=True).head.weight)

    path.unlink()
    config.write_text("precious")
    assert main(["export", MODEL, f"--output={path}"]) == 0
    assert f"{config} exists and was not replaced: add --overwrite" in capsys.readouterr().out
    assert config.read_text() == "precious"
    assert {each.name for each in tmp_path.iterdir()} == {"m.safetensors", "config.json"}
    assert main(["export", MODEL, f"--output={path}", "--overwrite"]) == 0
    assert json.loads(config.read_text())["architecture"] == NAME


@pytest.mark.parametrize("other", ["model.safetensors", "a.safetensors", "pytorch_model.bin", "z.pth"])
def test_no_config_is_written_where_timm_could_load_other_weights(other: str, tmp_path: Path, capsys):
    (tmp_path / other).write_text("of another network")
    assert main(["export", MODEL, f"--output={tmp_path / 'm.safetensors'}", "--overwrite"]) == 0
    assert f"config.json was not written, since timm may load {other} from this folder" in capsys.readouterr().out
    assert {each.name for each in tmp_path.iterdir()} == {"m.safetensors", other}
    assert (tmp_path / other).read_text() == "of another network"


@pytest.mark.parametrize("there", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_with_a_network_is_replaced_only_if_that_is_asked_for(there: str, ending: str, tmp_path: Path, capsys):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / there).write_text("precious")
    assert main(["export", MODEL, f"--output={folder}{ending}"]) == 2
    assert f"{there} exists already: name another file, or add --overwrite" in capsys.readouterr().err
    assert [each.read_text() for each in folder.iterdir()] == ["precious"]
    assert main(["export", MODEL, f"--output={folder}{ending}", "--overwrite"]) == 0
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 10


def test_a_config_by_which_timm_would_build_another_network_is_refused(tmp_path: Path, capsys, monkeypatch):
    right = export_formats.timm_config

    def other_mlp(card, net):
        return right(card, net) | {"model_args": {"mlp_ratio": 4.0}}

    monkeypatch.setattr(export_formats, "timm_config", other_mlp)
    assert main(["export", MODEL, f"--output={tmp_path}/net/"]) == 2
    assert "the network cannot be written as .safetensors: Error(s) in loading state_dict" in capsys.readouterr().err
    assert not list((tmp_path / "net").iterdir())


def test_a_card_that_cannot_be_read_again_is_refused(tmp_path: Path, capsys, monkeypatch):
    card = open_network(NAME).card
    monkeypatch.setattr(export_formats, "read_card", lambda _: ModelCard(**vars(card) | {"crop_pct": 0.5}))
    assert main(["export", MODEL, f"--output={tmp_path}/net/"]) == 2
    assert "model.safetensors was not written: crop_pct cannot be read again" in capsys.readouterr().err
    assert not list((tmp_path / "net").iterdir())
