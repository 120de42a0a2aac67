import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from vit_attn.checkpoints.contents import hyperparameters_of
from vit_attn.checkpoints.io import read_checkpoint
from vit_attn.checkpoints.stored_network import check_hyperparameters
from vit_attn.cli import main
from vit_attn.errors import UserError

PARAMETERS = {"arch": "vit_attn_tiny_patch4_32", "arch_options": {"depth": 1}, "num_classes": 3, "img_size": (32, 32)}
PARAMETERS |= {"in_chans": 3, "weights": None}
HOSTILE = {
    "huge image": {"img_size": (10**9, 10**9)},
    "no size": {"img_size": "32"},
    "many classes": {"num_classes": 10**12},
    "no classes": {"num_classes": 0},
    "a class of lightning's": {"_class_path": "antigravity.Classifier"},
    "other weights": {"weights": "http://127.0.0.1:9/a.pt"},
    "a network of a hub": {"arch": "hf-hub:somebody/network"},
    "no name": {"arch": ["vit"]},
    "depth": {"arch_options": {"depth": 10**9}},
    "another checkpoint": {"arch_options": {"checkpoint_path": "/etc/passwd"}},
    "an address": {"arch_options": {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/a"}}},
    "pretrained": {"arch_options": {"pretrained": True}},
    "no options": {"arch_options": "x" * 10_000},
}


def kept(path: Path, **changes) -> Path:
    torch.save({"hyper_parameters": PARAMETERS | changes, "state_dict": {}}, path)
    return path


def read(path: Path) -> dict[str, Any]:
    stored = hyperparameters_of(read_checkpoint(path), path)
    check_hyperparameters(path, stored)
    return stored


def test_what_a_checkpoint_of_ours_keeps_is_taken(tmp_path: Path):
    assert read(kept(tmp_path / "a.ckpt"))["num_classes"] == 3


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_checkpoint_that_would_build_anything_else_is_one_line(changes, tmp_path: Path, capsys):
    path = kept(tmp_path / "a.ckpt", **changes)
    with pytest.raises(UserError, match=r"a\.ckpt(:| does)"):
        read(path)
    for options in (
        ["test", f"--model={path}"],
        ["export", f"--model={path}", f"--output={tmp_path / 'b.safetensors'}"],
    ):
        assert main(options) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"vit-attn: {path}")
        assert error.count("\n") == 1
        assert len(error) < 400


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("hf-hub:somebody/network", {}),
        ("local-dir:/tmp", {}),
        ("vit_attn_tiny_patch4_32", {"img_size": [10**9, 10**9]}),
        ("vit_attn_tiny_patch4_32", {"checkpoint_path": "/etc/passwd"}),
        ("vit_attn_tiny_patch4_32", ["img_size"]),
    ],
)
def test_an_export_that_would_is_one_line_too(architecture, options, tmp_path: Path, capsys):
    header = {"architecture": architecture, "options": options, "class_names": None, "mean": [0.5], "std": [0.5]}
    header |= {"img_size": [32, 32], "crop_pct": 1.0}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(
        {"a": torch.zeros(1)}, path, {name: json.dumps(value) for name, value in header.items()}
    )
    assert main(["export", f"--model={path}", f"--output={tmp_path / 'b.safetensors'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vit-attn: {path}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["fit", "test", "validate", "predict"])
def test_lightning_loads_no_checkpoint_from_an_address(verb: str, monkeypatch, capsys):
    """From an address it would unpickle."""
    address = "http://127.0.0.1:9/a.ckpt"
    assert main([verb, f"{'--ckpt_path' if verb == 'fit' else '--model'}={address}", "--data.dataset=coins"]) == 2
    assert capsys.readouterr().err.startswith("vit-attn: checkpoint not found: http:")
