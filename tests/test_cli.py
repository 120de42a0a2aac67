import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

import vit_attn
from vit_attn.checkpoints.model_card import DATA_KEY, card_from_state
from vit_attn.cli import find_commands, main
from vit_attn.commands.parsing.option_table import read_table
from vit_attn.data import ImageData
from vit_attn.data.datasets.coins import GLYPH_NAMES
from vit_attn.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
QUICK = ["-c", str(CONFIGS / "quickstart.yaml"), *TINY, "--trainer.max_epochs=1", "--attention.num_images=1"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def fit(runs: Path, *options: str) -> Path:
    """Train for two steps and return the folder of the run."""
    known = set(runs.glob("*/*"))
    assert main(["fit", *QUICK, f"--runs={runs}", *options]) == 0
    (folder,) = set(runs.glob("*/*")) - known
    return folder


def test_a_run_leaves_a_folder_with_all_that_is_promised(runs: Path, capsys: pytest.CaptureFixture):
    folder = fit(runs)
    assert folder.parent == runs / "quickstart"
    assert (folder / "config.yaml").is_file()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(folder.glob("events.out.tfevents*"))
    output = capsys.readouterr().out
    assert "best validation accuracy: 0." in output
    assert str(folder / "checkpoints" / "best.ckpt") in output
    assert f"tensorboard --logdir {runs}" in output


def test_test_validate_and_predict_need_only_a_checkpoint(runs: Path, tmp_path: Path, capsys):
    folder = fit(runs)
    best = folder / "checkpoints" / "best.ckpt"
    for command, limit in (("test", "limit_test_batches"), ("validate", "limit_val_batches")):
        assert main([command, f"--model={best}", f"--trainer.{limit}=2", "--trainer.enable_progress_bar=false"]) == 0
        assert "accuracy" in capsys.readouterr().out
    assert main(["predict", "--model", str(best), "--trainer.limit_predict_batches=2"]) == 0
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 256
    guesses = [f"{name}_{rank}" for rank in range(1, 6) for name in ("class", "probability")]
    assert list(rows[0]) == ["image", "label", *guesses, "error"]
    assert [row["image"] for row in rows] == [str(number) for number in range(1, 257)]
    named = tmp_path / "p.json"
    options = ["--trainer.limit_predict_batches=1", f"--output={named}", "--top_k=1"]
    assert main(["predict", "--model", str(best), *options]) == 0
    (first, *_) = json.loads(named.read_text())
    assert first == {"image": 1, "label": rows[0]["label"], "class_1": rows[0]["class_1"]} | {
        "probability_1": float(rows[0]["probability_1"]),
        "error": None,
    }
    for there in (["--top_k=1"], [f"--output={named}"]):
        assert main(["predict", "--model", str(best), *there]) == 2
        assert "exists already" in capsys.readouterr().err
    assert main(["predict", "--model", str(best), "--top_k=11", "--overwrite"]) == 2
    assert "top_k must be from 1 to the network's 10 classes, got 11" in capsys.readouterr().err
    assert {path.name for path in runs.glob("*/*")} == {folder.name}


def test_the_saved_configuration_repeats_the_run(runs: Path):
    first = fit(runs, "--seed_everything=5")
    assert main(["fit", "-c", str(first / "config.yaml")]) == 0
    (second,) = set(runs.glob("*/*")) - {first}
    configurations = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (first, second)]
    assert configurations[0] == configurations[1]
    assert configurations[0]["seed_everything"] == 5


def test_a_run_is_resumed_only_with_its_own_settings(runs: Path, capsys: pytest.CaptureFixture):
    last = fit(runs) / "checkpoints" / "last.ckpt"
    assert main(["fit", *QUICK, f"--runs={runs}", f"--ckpt_path={last}", "--model.lr=0.5"]) == 2
    assert "can only be resumed with its own settings: model.lr is 0.5 here and 0.02 there" in capsys.readouterr().err


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(runs: Path):
    keep_all = ["--trainer.max_epochs=2", "--checkpoint.monitor=null", "--checkpoint.save_top_k=-1"]
    whole = fit(runs, *keep_all, "--checkpoint.filename={epoch}")
    resumed = fit(runs, *keep_all, "--checkpoint.filename={epoch}", f"--ckpt_path={whole / 'checkpoints' / '0.ckpt'}")
    ends = [torch.load(run / "checkpoints" / "1.ckpt", weights_only=True)["state_dict"] for run in (whole, resumed)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not (resumed / "checkpoints" / "0.ckpt").exists()


MISTAKES = {
    "no such command": (["ftt"], "unknown command 'ftt', did you mean 'fit'?"),
    "unknown option": (["fit", "--model.arh=x"], "unknown option --model.arh, did you mean '--model.arch'"),
    "abbreviated option": (["fit", "--trainer.max_epoch=1"], "unknown option --trainer.max_epoch, did you mean"),
    "positional configuration": (["fit", "a.yaml"], "unexpected argument 'a.yaml'; name configuration files with -c"),
    "wrong type": (["fit", "--model.lr=abc"], "model.lr: expected a number, got 'abc'"),
    "wrong choice": (["fit", "--model.decay=cosin"], "model.decay: expected 'cosine', 'linear', got 'cosin'"),
    "no such file": (["fit", "-c", "nope.yaml"], "nope.yaml"),
    "no such network": (["fit", "--model.arch=vit_attn_tini_patch4_32"], "did you mean 'vit_attn_tiny_patch4_32'"),
    "network of an own module": (["fit", "--model.arch=my_vit"], "; --import names the module of one of your own"),
    "no such option of it": (["fit", "--model.arch_options.depht=2"], "no option 'depht', did you mean 'depth'"),
    "no such data set": (["fit", "--data.dataset=cifar1O"], "unknown data set 'cifar1O', did you mean 'cifar10'"),
    "no such optimizer": (["fit", "--model.optimizer=adamv"], "unknown optimizer 'adamv', did you mean"),
    "patch": (["fit", "--model.arch_options.patch_size=5"], "img_size=32x32, patch_size=5"),
    "heads": (["fit", "--model.arch_options.num_heads=5"], "dim must be a multiple of num_heads, got dim=192"),
    "no files": (["fit", "--data.root=nowhere", "--data.download=false"], "cifar10 not found: no nowhere/cifar-10"),
    "augmentation": (["fit", "--data.augment.flip=7"], "augment.flip must be in 0..1, got 7.0"),
    "last": (["test", "--model=last"], "checkpoint not found: last"),
    "seed": (["fit", "--seed_everything=-1"], "seed_everything must be a number from 0 to 2**32 - 1, got -1"),
    "workers": (["fit", "--data.num_workers=-1"], "num_workers must be at least 0, got -1"),
    "learning rate": (["fit", "--model.lr=-1"], "lr must be above 0, got -1.0"),
    "endless": (["fit", "--trainer.max_epochs=-1"], "the run needs an end"),
    "network without maps": (
        [
            "fit",
            "--data.dataset=coins",
            "--model.arch=cait_xxs24_224",
            "--model.arch_options={depth: 1, patch_size: 4}",
        ],
        "to train without pictures of it: --attention.num_images=0",
    ),
    "no weights": (["fit", "--data.dataset=coins", "--model.weights=nope.pt"], "weights not found: nope.pt"),
    "other weights": (["fit", "--data.dataset=coins", "--model.weights=damaged.ckpt"], "without running code"),
    "form": (["fit", "--model.arch_options.affinity=cosin"], "got 'cosin', did you mean 'cosine'"),
    "window": (["fit", "--data.dataset=coins", "--model.arch_options.window=9"], "at most the grid of 8x8 patches"),
    "network of a test": (["test", "--model.arch_options.window=3"], "leave out --model.arch_options.window=3"),
    "no checkpoint": (["test"], "test needs a trained network: --model runs/NAME/RUN"),
    "missing checkpoint": (["test", "--model=nope.ckpt"], "checkpoint not found: nope.ckpt"),
    "damaged checkpoint": (["test", "--model=damaged.ckpt"], "damaged.ckpt is not a whole checkpoint"),
    "no such accelerator": (["fit", "--data.dataset=coins", "--trainer.accelerator=gpuu"], "gpuu"),
}


WITHOUT_TORCH = [
    *(MISTAKES[name][0] for name in ("no such command", "unknown option", "abbreviated option", "wrong type")),
    *(MISTAKES[name][0] for name in ("positional configuration", "wrong choice", "no such file", "network of a test")),
    *(MISTAKES[name][0] for name in ("no checkpoint", "missing checkpoint")),
    ["fit", "-c", "a.yaml"],
    ["validate", "--trainer.device=1"],
    ["test", "--ckpt_pth", "x"],
    ["predict", "--model=x", "--batch_size=3"],
    *([command, "--no_such_option=3"] for command in ("attend", "predict", "judge", "export", "export-html")),
]
"""Mistakes that are found before torch is imported."""


@pytest.mark.parametrize(("options", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_a_one_line_error_and_writes_nothing(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.ckpt").write_bytes(b"not a checkpoint")
    assert main(options) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("vit-attn: ")]
    assert message in line
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.ckpt"]


def test_a_mistake_in_a_configuration_file_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture):
    for text, message in (
        ("model:\n  lrr: 3\n", "--model.lrr, did you mean '--model.lr'"),
        ("model: [\n", "a.yaml, line 2 is not YAML"),
    ):
        (tmp_path / "a.yaml").write_text(text)
        assert main(["fit", "-c", str(tmp_path / "a.yaml")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_checkpoint_of_another_network_is_a_one_line_error(runs: Path, capsys: pytest.CaptureFixture, tmp_path: Path):
    last = fit(runs) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"]["net.head.weight"] = torch.zeros(3, 64)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    options = ["-c", str(CONFIGS / "quickstart.yaml"), f"--model={tmp_path / 'other.ckpt'}"]
    assert main(["test", *options, "--trainer.enable_progress_bar=false"]) == 2
    assert "net.head.weight has shape (3, 64) in the checkpoint and (10, 64) here" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("not a folder")
    assert main(["fit", *QUICK, f"--runs={tmp_path / 'file'}"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vit-attn: ")]
    assert str(tmp_path / "file") in line


COMMANDS = find_commands()
LIGHTNING = {"fit", "validate", "test"}
"""Commands whose options are Lightning's."""


def test_the_overview_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert {*LIGHTNING, "predict", "attend", "judge", "export", "export-html"} <= set(COMMANDS)
    for command, summary in COMMANDS.items():
        assert f"  {command:<13}{summary}\n" in overview
        assert re.fullmatch(r"[A-Z][^`]{10,90}[^.]", summary), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_of_any_command_is_a_one_line_error(command: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--no_such_option=3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(
        "vit-attn: (unknown option --no_such_option|the following arguments are required: |sweep needs a setting)", line
    )
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_named_by_a_tilde_after_the_equals_sign(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/nobody")
    assert main(["export", "--model=~/runs/a/b", "--output=a.onnx"]) == 2
    assert "/nobody/runs/a/b" in capsys.readouterr().err


def test_a_module_with_a_function_run_is_a_command_and_is_not_imported(tmp_path: Path):
    (tmp_path / "say_hello.py").write_text('"""Greet.\n\nMore."""\nraise SystemExit\ndef run(command, options): ...\n')
    (tmp_path / "shared.py").write_text('"""Shared options."""\ndef add_options(parser): ...\n')
    assert find_commands(tmp_path) == {"say-hello": "Greet"}


def test_help_and_version_need_no_torch():
    check = f"""
import sys
from vit_attn.cli import main
assert not any([main(["--help"]), main(["--version"]), main([])])
for command in {sorted(COMMANDS)}:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert not end.code
sys.exit("torch" in sys.modules or "lightning" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"vit-attn {vit_attn.__version__}" in done.stdout
    assert "fit" in done.stdout


@pytest.mark.skipif(
    read_table()["lightning"] != version("lightning"), reason="another Lightning is itself asked for its options"
)
def test_a_mistake_in_the_options_is_found_without_torch(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("model:\n  lrr: 3\n")
    check = f"""
import sys
from vit_attn.cli import main
for options in {WITHOUT_TORCH}:
    assert main(options) == 2, options
sys.exit("torch" in sys.modules or "lightning" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CONFIGS.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(WITHOUT_TORCH)


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "vit_attn", "ftt"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:18]) == (2, "vit-attn: unknown ")


def test_a_checkpoint_contains_the_data_set_that_it_was_trained_on(runs: Path):
    best = torch.load(fit(runs) / "checkpoints" / "best.ckpt", weights_only=True)
    card = card_from_state(best)
    assert (card.dataset, card.label_names, card.img_size) == ("coins", GLYPH_NAMES, (32, 32))
    data = ImageData("cifar10", root="nowhere")
    with pytest.raises(UserError, match="of other classes than cifar10: class 0 is 'rows' there and 'airplane' here"):
        data.load_state_dict(best[DATA_KEY])
