"""A fit that cannot start from its weights ends in one line, before anything is written."""

import pytest
import torch

from tests.runs import BRIEF
from vit_attn.cli import main
from vit_attn.task import Classifier

TINY = [*BRIEF, "--trainer.enable_model_summary=false", "--attention.num_images=0"]


def error_of(capsys: pytest.CaptureFixture, *options: str) -> str:
    assert main(["fit", *TINY, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vit-attn: ")]
    return line


COINS = "--data.dataset=coins"
MISTAKES = {
    "file": ([COINS, "--model.weights=gone.ckpt"], "weights not found: gone.ckpt"),
    "name": (
        [COINS, "--model.weights=vit_smal_patch16_224"],
        "not found: vit_smal_patch16_224, did you mean 'vit_small",
    ),
    "neither": ([COINS, "--model.weights=abc"], "weights not found: abc, neither a file nor a network's name"),
    "tag": (
        [COINS, "--model.weights=vit_tiny_patch16_224.abc"],
        "the weights of vit_tiny_patch16_224.abc cannot be had",
    ),
    "no weights": (
        [COINS, "--model.weights=vit_attn_tiny_patch4_32"],
        "of vit_attn_tiny_patch4_32 cannot be had: No pre",
    ),
    "random head": (
        [COINS, "--model.train=head"],
        "train=head freezes the rest of the network, whose weights are random",
    ),
    "random probe": ([COINS, "--model.probe=0.2"], "probe=0.2 freezes the rest of the network"),
    "part": (
        [COINS, "--model.train=haed"],
        "model.train: expected a whole number or one of 'all', 'head', got 'haed', did you mean 'head'?",
    ),
    "blocks": (["--model.weights=vit_attn_coins_patch4_32", COINS, "--model.train=9"], "last blocks in 1..3, got 9"),
    "probe": (
        ["--model.weights=vit_attn_coins_patch4_32", COINS, "--model.probe=2"],
        "probe must be in [0, 1), got 2.0",
    ),
    "decay": ([COINS, "--model.layer_decay=0"], "layer_decay must be in (0, 1], got 0.0"),
    "comparison": ([COINS, "--comparison.num_images=-1"], "num_images must be at least 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options, message = MISTAKES[name]
    assert message in error_of(capsys, *options)


def test_weights_of_another_network_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = Classifier("vit_attn_coins_patch4_32", {"depth": 2, "embed_dim": 32, "num_heads": 2})
    source = tmp_path / "source.ckpt"
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict()}, source)
    told = error_of(capsys, COINS, f"--model.weights={source}", "--model.arch=vit_attn_tiny_patch4_32")
    assert "is of the network vit_attn_coins_patch4_32, not of vit_attn_tiny_patch4_32: leave out model.arch" in told
    told = error_of(capsys, COINS, f"--model.weights={source}", "--model.arch_options.depth=3")
    assert "do not fit the network: 12 missing (blocks.2." in told
    (tmp_path / "damaged.ckpt").write_bytes(b"not a checkpoint")
    assert "damaged.ckpt is not a whole checkpoint: it holds no weights that can be read" in error_of(
        capsys, COINS, "--model.weights=damaged.ckpt"
    )


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, capsys):
    def unreachable(*_args, **_options):
        raise ConnectionError("no network\nand many more lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    for options in (
        ["--model.weights=vit_tiny_patch16_224"],
        ["--model.arch=vit_tiny_patch16_224", "--model.arch_options.pretrained=true"],
    ):
        told = error_of(capsys, COINS, "--data.img_size=32", *options)
        assert "the weights of vit_tiny_patch16_224 cannot be had: no network; or name a file of them" in told
