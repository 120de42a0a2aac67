import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import safetensors
import timm
import torch
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch.testing import assert_close

from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.checkpoints.weights import load_weights
from vit_attn.cli import main
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.inference import export_formats
from vit_attn.inference.export import ExportSettings, export
from vit_attn.inference.network import TrainedNetwork, open_network

pytestmark = pytest.mark.slow  # each test takes long for what it computes

NAME = "vit_attn_cifar10_patch4_32"
MODEL = f"--model={NAME}"
CLASSES = find_dataset("cifar10").class_names
SHAPE = {"img_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 64, "depth": 4, "num_heads": 2}
TIMM = SHAPE | {"mlp_ratio": 2.0, "class_token": False, "global_pool": "avg"}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(images: torch.Tensor) -> torch.Tensor:
    return timm.create_model(NAME, pretrained=True).eval()(images)


def test_weights_load_strictly_into_timms_network_and_back_into_ours(tmp_path: Path, images, capsys):
    path = tmp_path / "m.safetensors"
    assert main(["export", MODEL, f"--output={path}"]) == 0
    assert "largest difference of a logit 0.0e+00" in capsys.readouterr().out
    theirs = TimmViT(**TIMM).eval()
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    ours = timm.create_model(NAME, checkpoint_path=str(path)).eval()
    again = open_network(str(path))
    load_weights(timm.create_model(NAME), path)
    with torch.no_grad():
        for net in (theirs, ours, again.net):
            assert_close(net(images), logits(images), atol=1e-5, rtol=1e-5)
    assert (again.card.label_names, again.card.architecture, again.card.img_size) == (CLASSES, NAME, (32, 32))
    with safetensors.safe_open(path, "pt") as file:
        said = file.metadata()
    assert json.loads(said["architecture"]) == NAME
    assert json.loads(said["label_names"]) == list(CLASSES)
    assert said["format"] == "pt"


def test_an_onnx_program_agrees_for_any_batch_and_says_what_it_is(tmp_path: Path, images):
    path = tmp_path / "m.onnx"
    assert main(["export", MODEL, f"--output={path}"]) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (answer,) = session.run(["logits"], {"images": images[:count].numpy()})
        assert_close(torch.from_numpy(answer), logits(images[:count]), atol=1e-4, rtol=1e-4)
    model = onnx.load(path)
    assert {each.domain: each.version for each in model.opset_import}[""] == export_formats.OPSET
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["label_names"]) == list(CLASSES)
    assert json.loads(said["pixels"]) == "normalised"
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("ending", "pixels"), [("pt2", "unit"), ("onnx", "uint8")])
def test_a_program_can_normalise_by_itself(ending: str, pixels: str, tmp_path: Path):
    path, source = tmp_path / f"m.{ending}", find_dataset("cifar10")
    assert main(["export", MODEL, f"--output={path}", f"--with_normalize={pixels}"]) == 0
    raw = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    given = raw if pixels == "uint8" else raw / 255
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (source.mean, source.std))
    expected = logits((raw / 255 - mean) / std)
    if ending == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answer = torch.from_numpy(session.run(None, {"images": given.numpy()})[0])
    else:
        extra = {"vit_attn.json": ""}
        answer = torch.export.load(path, extra_files=extra).module()(given)
        assert json.loads(extra["vit_attn.json"])["pixels"] == "unit"
    assert_close(answer, expected, atol=1e-3, rtol=1e-3)


FORMS = {
    "gaussian, rotations, registers": {"affinity": "gaussian", "pos_embed": "rope", "reg_tokens": 2, "qk_norm": True},
    "additive, window, attention pool": {"affinity": "additive", "window": 3, "global_pool": "map"},
    "cosine, top keys, conv stem": {"affinity": "cosine", "normaliser": "top_k", "top_k": 5, "stem": "conv"},
    "hard": {"normaliser": "hard", "pos_embed": "sincos"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_every_form_of_attention_is_exported(form, ending: str, tmp_path: Path):
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": (16, 16), "num_classes": 4, **form}
    net = timm.create_model("vit_attn_tiny_patch4_32", **options).eval()
    card = ModelCard("vit_attn_tiny_patch4_32", options, None, (3, 16, 16), (0.5,) * 3, (0.2,) * 3)
    assert "largest difference" in export(TrainedNetwork(net, card), ExportSettings(tmp_path / f"m.{ending}"))
    assert (tmp_path / f"m.{ending}").stat().st_size > 10_000


@pytest.mark.parametrize("ending", ["onnx", "pt2", "safetensors"])
def test_a_network_of_timm_is_exported(ending: str, tmp_path: Path):
    path = tmp_path / f"m.{ending}"
    assert main(["export", "--model=test_vit", "--weights=none", "--img_size=64", f"--output={path}"]) == 0
    if ending == "safetensors":
        assert open_network(str(path)).card.img_size == (64, 64)


def test_a_program_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path: Path, capsys, monkeypatch):
    def wrong(net, network, path, said, example):
        path.write_bytes(b"a program")
        return lambda images: net(images) + 0.1

    monkeypatch.setitem(export_formats.WRITERS, ".pt2", wrong)
    assert main(["export", MODEL, f"--output={tmp_path / 'm.pt2'}"]) == 2
    assert "was not written: its logits differ by 1.00e-01" in capsys.readouterr().err
    monkeypatch.setitem(export_formats.WRITERS, ".pt2", lambda net, *_: lambda images: net(images) * float("nan"))
    assert main(["export", MODEL, f"--output={tmp_path / 'm.pt2'}"]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([MODEL], "export needs --output: FOLDER/, or a file that ends in"),
        (
            [MODEL, "--output=m.onx"],
            "output must end in one of .safetensors, .onnx, .pt2, or in / for a folder, got 'm.onx', did you mean "
            "'.onnx'",
        ),
        ([MODEL, "--output=m.safetensors", "--with_normalize"], "weights have no program that could normalise"),
        ([MODEL, "--output=m.onnx", "--with_normalize=bytes"], "--with_normalize"),
        ([MODEL, "--output=m.onnx", "--tolerance=0"], "--tolerance must be above 0, got 0.0"),
        ([MODEL, "--output="], "export needs --output: FOLDER/, or a file that ends in"),
        ([MODEL, "--output=there.onnx/"], "there.onnx is a file: name another folder"),
        ([MODEL, "--output=there.onnx"], "there.onnx exists already: name another file, or add --overwrite"),
        (["--model=nope", "--output=m.onnx"], "unknown network 'nope'"),
        (["--model=none.safetensors", "--output=m.onnx"], "checkpoint not found: none.safetensors"),
        (
            ["--model=there.safetensors", "--output=m.onnx"],
            "there.safetensors holds no weights that can be read: it is corrupt",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(options, message, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("there.onnx", "there.safetensors"):
        (tmp_path / name).write_text("precious")
    assert main(["export", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vit-attn: ")
    assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"there.onnx", "there.safetensors"}


def test_onnx_without_its_packages_says_what_to_install(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", MODEL, f"--output={tmp_path / 'm.onnx'}"]) == 2
    assert (
        "writing ONNX needs onnxscript, which is not installed: pip install 'vit_attn[export]'"
        in capsys.readouterr().err
    )
