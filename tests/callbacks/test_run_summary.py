from pathlib import Path

import pytest

from tests.runs import fit
from vit_attn.callbacks import run_summary
from vit_attn.model.build import build_net


def summary(capsys: pytest.CaptureFixture) -> dict[str, str]:
    lines = capsys.readouterr().out.splitlines()
    return {
        line[:11].strip(): line[11:]
        for line in lines[: 1 + next(i for i, each in enumerate(lines) if each.startswith("run  "))]
    }


def test_the_summary_names_network_cost_images_and_length(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = fit(tmp_path, "--trainer.max_steps=6")
    lines = summary(capsys)
    net = build_net(
        "vit_attn_tiny_patch4_32",
        num_classes=10,
        img_size=(32, 32),
        in_chans=3,
        options={"depth": 1, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2},
    )
    assert lines["parameters"] == f"{sum(each.numel() for each in net.parameters()):,}, all train"
    tokens, width = 65, 16
    block = 2 * tokens * width * (4 + 2 * 2) * width + 2 * 2 * tokens * tokens * width
    forward = 2 * 64 * (3 * 16) * width + block + 2 * width * 10
    assert lines["per image"] == f"{forward / 1e6:.1f} MFLOP to predict, {3 * forward / 1e6:.1f} MFLOP to train"
    assert lines["network"] == "vit_attn_tiny_patch4_32, images of 32x32 pixels, 10 classes"
    assert lines["images"] == "2,048 training, 128 validation, 128 test"
    assert lines["training"] == "6 steps; an epoch is 5 batches of 16 images"
    assert lines["run"] == str(folder)


def test_frozen_parameters_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture):
    weights = f"--model.weights={fit(tmp_path, '--trainer.max_steps=1') / 'checkpoints' / 'last.ckpt'}"
    capsys.readouterr()
    fit(tmp_path, "--trainer.max_steps=1", weights, "--model.train=head")
    assert ", of which 170 train" in summary(capsys)["parameters"]
    fit(tmp_path, "--trainer.max_steps=4", weights, "--model.probe=0.5")
    assert summary(capsys)["parameters"].endswith(", of which 170 train (the head alone until step 2)")
    fit(tmp_path, "--trainer.max_steps=1", weights, "--model.probe=0.5")  # too short for a probe
    assert summary(capsys)["parameters"].endswith(", all train")


def test_a_run_without_a_summary_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_summary, "count_flops", lambda *_: pytest.fail("counted"))
    fit(tmp_path, "--trainer.max_steps=1", "--trainer.enable_model_summary=false")


def test_operations_are_counted_on_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted = []
    original = run_summary.count_flops

    def count(net, images):
        counted.append(tuple(images.shape))
        return original(net, images)

    monkeypatch.setattr(run_summary, "count_flops", count)
    fit(tmp_path, "--trainer.max_steps=1")
    assert counted == [(1, 3, 32, 32)]
