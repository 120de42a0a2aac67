"""Commands over the checkpoints of a run that begins with coarse patches."""

import json
import re
from pathlib import Path

import pytest
import torch

from tests.runs import curves, differences, fit, main, read, resume, stop_at
from vit_attn.checkpoints.io import read_card
from vit_attn.errors import UserError
from vit_attn.inference.network import open_network
from vit_attn.task import Classifier

COARSE = ["--model.coarse_patch_size=8", "--model.coarse_until=0.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 15 steps, 7 of them with coarse patches, with a checkpoint of each epoch."""
    every = ["--checkpoint.filename={step}", "--checkpoint.save_top_k=-1", "--attention.num_images=2"]
    return fit(tmp_path_factory.mktemp("coarse"), *COARSE, *every, "--attention.max_cost=1", "--model.whiten=0.5")


def path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step}.ckpt"


@pytest.mark.parametrize("step", [5, 10])
def test_validation_of_a_checkpoint_repeats_what_training_logged(run: Path, step: int, capsys):
    limits = ["--trainer.limit_val_batches=3", "--trainer.enable_progress_bar=false"]
    assert main(["validate", f"--model={path(run, step)}", *limits]) == 0
    logged = {name: dict(curves(run)[name])[step - 1] for name in ("val/loss", "val/accuracy")}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("validation: ")]
    printed = re.search(r"loss ([\d.]+), accuracy ([\d.]+)", line)
    assert [float(each) for each in printed.groups()] == pytest.approx(list(logged.values()), abs=5.1e-5)


@pytest.mark.parametrize(("step", "side"), [(5, 8), (10, 4), (15, 4)])
def test_a_checkpoint_is_the_network_of_its_step(run: Path, step: int, side: int, tmp_path: Path):
    card = read_card(path(run, step))
    assert card.model_args.get("patch_size", 4) == side
    net = open_network(str(path(run, step))).net
    assert net.patch_embed.patch_size == (side, side)
    images = torch.randn(2, 3, 32, 32)
    task = Classifier.load_from_checkpoint(path(run, step), weights_only=True).eval()
    assert torch.equal(net(images), task(images))
    assert main(["export", f"--model={path(run, step)}", f"--output={tmp_path / 'a.safetensors'}"]) == 0
    assert torch.equal(open_network(str(tmp_path / "a.safetensors")).net(images), net(images))


def test_a_coarse_checkpoint_is_tested_and_judged(run: Path):
    assert main(["test", f"--model={path(run, 5)}", "--trainer.enable_progress_bar=false"]) == 0
    assert json.loads((run / "test.json").read_text())["step"] == 5
    assert main(["judge", f"--model={path(run, 5)}", "--images=2"]) == 0


def test_another_run_starts_from_a_coarse_checkpoint_with_its_patches(run: Path, tmp_path: Path):
    other = fit(tmp_path, f"--model.weights={path(run, 5)}", "--trainer.max_epochs=1")
    assert read(other)["state_dict"]["net.pos_embed"].shape == (1, 17, 16)
    assert read(other)["hyper_parameters"]["arch_options"]["patch_size"] == 8
    assert "patch_size" not in read(other)


def test_the_report_and_the_hyperparameters_name_the_change(tmp_path: Path, capsys):
    run = fit(tmp_path, *COARSE, "--trainer.max_epochs=1")
    assert "patches: of 8 pixels until step 2, then of 4" in capsys.readouterr().out
    assert read(run)["hyper_parameters"]["coarse_patch_size"] == 8


def test_a_longer_run_changes_at_the_step_of_the_checkpoint(tmp_path: Path):
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 6)
        longer = fit(tmp_path / "longer", *COARSE, code=143)
    resume(longer, "--trainer.max_epochs=5")
    assert read(longer)["coarse_steps"] == 7
    assert read(longer)["global_step"] == 25
    assert read(longer)["state_dict"]["net.pos_embed"].shape == (1, 65, 16)


def test_a_resumed_run_is_not_whitened_again(tmp_path: Path):
    options = ["--model.whiten=0.5", "--trainer.max_epochs=2"]
    whole = fit(tmp_path / "whole", *options)
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "run", *options, code=143)
    resume(run)
    assert differences(read(run), read(whole)) == []


def test_ground_truth_is_measured_only_with_patches_that_fit_it(run: Path):
    assert [step for step, _ in curves(run)["vit_attention/pointing_fraction/relevance"]] == [10, 15]
    assert [step for step, _ in curves(run)["vit_attention/entropy_nats/layer_1"]] == [0, 5, 10, 15]


def test_the_checkpoint_says_nothing_of_patches_without_coarse_ones(tmp_path: Path):
    assert not {"patch_size", "coarse_steps"} & read(fit(tmp_path, "--trainer.max_epochs=1")).keys()


@pytest.mark.parametrize("size", ["8", 0, -8, 33, True, [8]])
def test_a_patch_size_that_no_network_has_is_one_line(run: Path, tmp_path: Path, size: object):
    torch.save(read(run, "5") | {"patch_size": size}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="patch_size must be pixels up to the image's 32"):
        read_card(tmp_path / "bad.ckpt")
