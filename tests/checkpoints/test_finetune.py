import itertools
import warnings
from pathlib import Path

import pytest
import timm
import torch
import yaml
from jsonargparse import Namespace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs import BRIEF
from vit_attn.checkpoints.finetune import apply_to_settings, resolve_start
from vit_attn.checkpoints.model_card import card_from_state
from vit_attn.checkpoints.weights import save_weights
from vit_attn.cli import main
from vit_attn.model.build import build_net
from vit_attn.task import Classifier

CONFIG = Path(__file__).parent.parent.parent / "configs" / "finetune.yaml"
TINY = [*BRIEF, "--trainer.enable_model_summary=false", "--attention.num_images=0"]
NETWORK = ["--model.arch=vit_attn_coins_patch4_32", "--model.arch_options={depth: 2, embed_dim: 32, num_heads: 2}"]
NUMBERS = itertools.count()


def fit(folder: Path, *options: str) -> Path:
    """Train for a moment; the folder of the run."""
    runs = folder / f"runs{next(NUMBERS)}"
    assert main(["fit", f"--runs={runs}", *options, *TINY]) == 0
    (run,) = runs.glob("*/*")
    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network of coins."""
    return fit(tmp_path_factory.mktemp("source"), "--data.dataset=coins", *NETWORK) / "checkpoints" / "last.ckpt"


def settings_of(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def tuned(folder: Path, cifar10_root: Path, *options: str) -> Path:
    return fit(folder, "-c", str(CONFIG), f"--data.root={cifar10_root}", *options)


def test_two_flags_start_a_fine_tuning_that_is_measured_predicted_and_resumed(tmp_path, source, cifar10_root, capsys):
    run = tuned(tmp_path, cifar10_root, f"--model.weights={source}")
    settings = settings_of(run)
    assert settings["model"]["arch"] == "vit_attn_coins_patch4_32"
    assert settings["model"]["arch_options"] == {"depth": 2, "embed_dim": 32, "num_heads": 2}
    data = settings["data"]
    assert (data["normalize"], data["img_size"], data["channels"]) == (str(source), 32, 3)
    last = run / "checkpoints" / "last.ckpt"
    assert card_from_state(torch.load(last, weights_only=True)).mean == pytest.approx([0.25] * 3)  # that of coins
    tags = EventAccumulator(str(run)).Reload().Tags()  # the comparison is on by itself
    assert "vit_attention/divergence_nats/layer_2" in tags["scalars"]
    assert "vit_attention/image_4_source_and_tuned" in tags["images"]
    quiet = "--trainer.enable_progress_bar=false"
    for verb in ("test", "validate", "predict"):
        assert main([verb, f"--model={last}", quiet]) == 0
    assert len((run / "predictions.csv").read_text().splitlines()) == 1 + 40
    capsys.readouterr()
    source.rename(source.with_suffix(".gone"))
    try:  # a run needs what it started from no more
        assert main(["test", f"--model={last}", quiet]) == 0
        with pytest.warns(UserWarning, match=r"comparison with .* is off: weights not found"):
            assert main(["fit", "-c", str(run / "config.yaml"), f"--ckpt_path={last}", "--trainer.max_epochs=2"]) == 0
    finally:
        source.with_suffix(".gone").rename(source)


def test_options_of_the_network_go_over_the_checkpoints_and_what_is_resampled_is_said(
    tmp_path, source, cifar10_root, caplog
):
    options = [f"--model.weights={source}", "--model.arch_options.patch_size=8", "--data.img_size=48"]
    with caplog.at_level("INFO"):
        run = tuned(tmp_path, cifar10_root, *options, "--model.train=1", "--model.probe=0")
    said = [line.removeprefix(f"{source}: ") for line in caplog.messages]
    assert "patch_embed.proj.weight was resampled from (32, 3, 4, 4) to (32, 3, 8, 8)" in said
    assert "pos_embed was resampled from (1, 65, 32) to (1, 37, 32)" in said
    assert settings_of(run)["model"]["arch_options"]["patch_size"] == 8
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    before = torch.load(source, weights_only=True)["state_dict"]
    assert torch.equal(weights["net.blocks.0.mlp.fc1.weight"], before["net.blocks.0.mlp.fc1.weight"])
    assert not torch.equal(weights["net.blocks.1.mlp.fc1.weight"], before["net.blocks.1.mlp.fc1.weight"])


def test_a_name_brings_its_network_images_and_statistics(tmp_path, cifar10_root):
    run = tuned(tmp_path, cifar10_root, "--model.weights=vit_attn_cifar10_patch4_32", "--model.arch_options={}")
    settings = settings_of(run)
    assert settings["model"]["arch"] == "vit_attn_cifar10_patch4_32"
    assert settings["data"]["normalize"] == "vit_attn_cifar10_patch4_32"
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["net.head.weight"]
    shipped = timm.create_model("vit_attn_cifar10_patch4_32", pretrained=True).head.weight
    assert (weights - shipped).abs().max() < 0.01  # of the same classes, the head too


def test_an_export_and_a_checkpoint_of_another_name_bring_as_much(tmp_path, source, cifar10_root):
    exported, renamed = tmp_path / "coins.safetensors", tmp_path / "best.ckpt.kept"
    assert main(["export", "--model", str(source), "--output", str(exported)]) == 0
    renamed.write_bytes(source.read_bytes())
    for weights in (exported, renamed):
        settings = settings_of(tuned(tmp_path, cifar10_root, f"--model.weights={weights}"))
        assert settings["model"]["arch_options"] == {"depth": 2, "embed_dim": 32, "num_heads": 2}
        data = settings["data"]
        assert (data["normalize"], data["img_size"], data["channels"]) == (str(weights), 32, 3)


def test_a_file_of_weights_alone_is_said_to_tell_no_normalisation(tmp_path):
    save_weights(build_net("vit_attn_coins_patch4_32", 10, (32, 32), 3, {"depth": 2}), tmp_path / "w.safetensors")
    options = [f"--model.weights={tmp_path / 'w.safetensors'}", "--model.arch=vit_attn_coins_patch4_32"]
    options += ["--model.arch_options.depth=2", "--data.dataset=coins"]
    with pytest.warns(UserWarning, match=r"w\.safetensors does not say how its images were normalised"):
        fit(tmp_path, *options)
    with warnings.catch_warnings(record=True) as told:
        fit(tmp_path, *options, "--data.normalize=coins")
    assert not [each for each in told if "normalised" in str(each.message)]


def test_a_moved_checkpoint_measures_other_images_in_the_size_it_knows(tmp_path, picture_folder, capsys):
    root = picture_folder({"bright": 12, "dark": 12})
    of_folder = ["--data.dataset=folder", f"--data.root={root}"]
    run = fit(tmp_path, *of_folder, *NETWORK, "--data.img_size=16", "--data.channels=1")
    moved = tmp_path / "moved.ckpt"
    (run / "checkpoints" / "last.ckpt").rename(moved)
    quiet = "--trainer.enable_progress_bar=false"
    assert main(["test", f"--model={moved}", *of_folder, quiet]) == 0
    three = picture_folder({"bright": 12, "dark": 12, "mid": 12}, "three")
    assert main(["test", f"--model={moved}", "--data.dataset=folder", f"--data.root={three}", quiet]) == 2
    told = capsys.readouterr().err
    assert "the checkpoint is of other classes than folder: class 2 is 'none' there and 'mid' here" in told


def test_a_head_of_as_many_other_classes_is_left_out_which_is_no_warning(tmp_path, cifar10_root, caplog):
    with caplog.at_level("INFO"):
        tuned(tmp_path, cifar10_root, "--model.weights=vit_attn_coins_patch4_32")
    said = "vit_attn_coins_patch4_32: the head of other classes was left out; the new one is untrained"
    assert said in caplog.messages


def test_weights_of_timms_name_can_go_into_our_blocks(monkeypatch):
    theirs = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64)
    task = {"weights": "vit_tiny_patch16_224.augreg_in21k", "img_size": (32, 32), "num_classes": 10}
    ours = build_net("vit_attn_tiny_patch16_224", 10, (32, 32), 3, {"depth": 1})
    monkeypatch.setattr("vit_attn.checkpoints.finetune.build_net", lambda *_args: ours)
    monkeypatch.setattr("timm.create_model", lambda *_args, **_options: theirs)
    Classifier("vit_attn_tiny_patch16_224", **task)
    assert torch.equal(ours.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)


OURS = "vit_attn_tiny_patch16_224"


def test_a_network_that_is_named_beside_timms_weights_stays():
    weights = "vit_tiny_patch16_224"
    model = Namespace(weights=weights, arch=OURS, arch_options=None)
    data = Namespace(normalize="clip", img_size=None, channels=None)
    apply_to_settings(resolve_start(weights, OURS), model, data)
    assert model.arch == OURS
    assert data == Namespace(normalize="clip", img_size=224, channels=3)
    data.normalize = None
    apply_to_settings(resolve_start(weights), model, data)
    assert (model.arch, data.normalize) == (weights, weights)


def test_a_file_of_weights_fills_the_network_that_is_named(tmp_path, cifar10_root, capsys):
    net = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=48, num_heads=3, patch_size=8, img_size=64)
    save_weights(net, tmp_path / "a.safetensors")
    options = [
        "--model.arch_options={depth: 1, embed_dim: 48, num_heads: 3}",
        f"--model.weights={tmp_path}/a.safetensors",
    ]
    options += ["--model.train=head", "--model.probe=0"]
    assert main(["fit", "-c", str(CONFIG), *options, f"--data.root={cifar10_root}", f"--runs={tmp_path / 'none'}"]) == 2
    assert "a.safetensors does not say which network it is of: name that, with model.arch" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.warns(UserWarning, match=r"does not say how its images were normalised"):
        run = tuned(tmp_path, cifar10_root, *options, "--model.arch=vit_attn_tiny_patch4_32")
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(weights["net.blocks.0.attn.qkv.weight"], net.blocks[0].attn.qkv.weight)


def test_a_name_of_timms_alone_loads_its_weights_and_says_what_changed(monkeypatch, caplog):
    theirs = timm.create_model("vit_tiny_patch16_224", depth=1)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_options: theirs.state_dict())
    with caplog.at_level("INFO"):
        task = Classifier("vit_tiny_patch16_224", {"depth": 1}, weights="vit_tiny_patch16_224", img_size=(32, 32))
    assert torch.equal(task.net.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    assert task.start == "vit_tiny_patch16_224"
    assert [each.partition(": ")[2] for each in caplog.messages if each.startswith("vit_tiny_patch16_224: ")] == [
        "positions were resampled from images of 224x224 to 32x32 pixels",
        "the head of 1000 classes was left out; the new one of 10 is untrained",
    ]


def test_a_rare_class_can_weigh_more_in_the_loss(tmp_path, cifar10_root):
    run = tuned(tmp_path, cifar10_root, "--data.balance=loss")
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]["class_weights"]
    assert stored == pytest.approx([1.0] * 10)
