"""Networks by the folder of a run, and names of networks that are no vision transformers."""

import os
from pathlib import Path

import pytest
import timm
import torch

from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.inference import network as module
from vit_attn.inference.network import open_network
from vit_attn.task import Classifier


def write_run(folder: Path, width: int, names: tuple[str, ...], seconds: int) -> None:
    """A run whose network has this width, last written at a time."""
    options = {"depth": 1, "embed_dim": width, "num_heads": 2}
    task, data = Classifier(arch_options=options), ImageData("coins")
    (folder / "checkpoints").mkdir(parents=True)
    content = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), "ImageData": data.state_dict()}
    for name in names:
        torch.save(content, folder / "checkpoints" / name)
        os.utime(folder / "checkpoints" / name, (seconds, seconds))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "vit" / "a", 16, ("best.ckpt",), 200)
    write_run(tmp_path / "runs" / "vit" / "b", 32, ("last.ckpt",), 300)
    write_run(tmp_path / "runs" / "other" / "c", 48, ("best.ckpt", "last.ckpt"), 100)
    (tmp_path / "runs" / "vit" / "d" / "checkpoints").mkdir(parents=True)
    return tmp_path / "runs"


@pytest.mark.parametrize(("folder", "width"), [("vit/a", 16), ("vit/b", 32), ("other/c", 48)])
def test_a_run_is_its_best_checkpoint_or_else_its_last(runs: Path, folder: str, width: int, capsys):
    assert open_network(str(runs / folder)).net.embed_dim == width
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("folder", "width", "count"), [("", 32, 3), ("vit", 32, 2)])
def test_of_a_folder_of_runs_the_newest_is_taken_and_named(runs: Path, folder: str, width: int, count: int, capsys):
    assert open_network(str(runs / folder)).net.embed_dim == width
    said = capsys.readouterr().out
    assert said == f"{runs / folder}: {runs / 'vit' / 'b' / 'checkpoints' / 'last.ckpt'}, the newest of {count} runs\n"


def test_the_best_checkpoint_is_taken_before_a_newer_last_one(runs: Path):
    write_run(runs / "vit" / "e", 64, ("best.ckpt",), 400)
    (runs / "vit" / "e" / "checkpoints" / "last.ckpt").write_bytes(b"not read")
    assert open_network(str(runs / "vit" / "e"), attends=True).net.embed_dim == 64


def test_a_folder_without_a_checkpoint_is_refused(runs: Path):
    with pytest.raises(UserError, match="is a folder without a checkpoint; name the folder of a run"):
        open_network(str(runs / "vit" / "d"))


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "mixer_b16_224"])
def test_a_network_that_is_no_vision_transformer_is_refused_before_anything_is_downloaded(name, monkeypatch):
    create = timm.create_model

    def create_without_weights(arch: str, pretrained: bool, **options: object) -> object:
        assert not pretrained, "weights were asked for"
        return create(arch, pretrained=False, **options)

    monkeypatch.setattr(module.timm, "create_model", create_without_weights)
    with pytest.raises(UserError, match=f"{name} is no vision transformer whose attention can be shown"):
        open_network(name, attends=True)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "vit_tiny_patch16_224",
            "deit3_small_patch16_224",
            "deit_tiny_distilled_patch16_224",
            "eva02_tiny_patch14_336",
        ),
        *(
            "beit_base_patch16_224",
            "vit_small_patch16_dinov3",
            "vit_base_patch16_siglip_224",
            "vit_attn_coins_patch4_32",
        ),
    ],
)
def test_vision_transformers_pass_the_test_without_weights(name: str, monkeypatch: pytest.MonkeyPatch):
    create = timm.create_model

    def stop_at_weights(arch: str, pretrained: bool, **options: object) -> object:
        if pretrained:
            raise InterruptedError("asked for weights")
        net = create(arch, pretrained=False, **options)
        assert all(each.is_meta for each in net.parameters())
        return net

    monkeypatch.setattr(module.timm, "create_model", stop_at_weights)
    with pytest.raises(UserError, match="asked for weights"):
        open_network(name, attends=True)


def test_predict_takes_a_network_that_is_no_vision_transformer():
    assert open_network("resnet18", "none").num_classes == 1000
