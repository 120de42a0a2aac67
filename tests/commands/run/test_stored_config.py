import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.runs import fit
from vit_attn.checkpoints.model_card import DATA_KEY
from vit_attn.cli import main
from vit_attn.commands.run.stored_config import read_run_config, settings_to_measure
from vit_attn.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
TINY = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
QUICK = ["-c", str(CONFIGS / "quickstart.yaml"), *TINY, "--trainer.max_epochs=1", "--attention.num_images=0"]
MEASURE = {
    "test": ["--trainer.limit_test_batches=1", "--trainer.enable_progress_bar=false"],
    "validate": ["--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"],
    "predict": ["--trainer.limit_predict_batches=1", "--trainer.enable_progress_bar=false"],
    "judge": ["--images=2"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("trained")
    assert main(["fit", *QUICK, f"--runs={runs}", "--model.arch_options.depth=1"]) == 0
    (folder,) = runs.glob("*/*")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of its own for each test."""
    return shutil.copytree(trained, tmp_path / "runs" / "vit" / "1")


def hostile(folder: Path) -> dict:
    """What would write files, import modules or unpickle, if any of it were built."""
    profiler = {"class_path": "SimpleProfiler", "init_args": {"dirpath": str(folder), "filename": "profiled"}}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder / "logged")}}
    callback = {"class_path": "DeviceStatsMonitor", "init_args": {}}
    strategy = {"class_path": "no_such_module.Strategy"}
    trainer = {"profiler": profiler, "logger": [logger], "callbacks": [callback], "plugins": [strategy]}
    trainer |= {"strategy": strategy, "accelerator": "no_such_module.Accelerator", "default_root_dir": str(folder)}
    return {"trainer": trainer, "weights_only": False, "ckpt_path": str(folder / "other.ckpt")}


@pytest.mark.parametrize("verb", MEASURE)
def test_a_configuration_beside_a_checkpoint_builds_nothing(verb: str, run: Path, tmp_path: Path, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    evil = hostile(tmp_path / "written")
    config |= evil | {"trainer": config["trainer"] | evil["trainer"], "no_such_section": {"a": 1}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main([verb, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", *MEASURE[verb]]) == 0
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\n" + "b: &a [*a, *a, *a, *a, *a, *a, *a, *a]\n" * 10, "what aliases repeat included"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("- a list", "is not the configuration of a run"),
        ("a: [", "cannot be read as a configuration"),
        ("a: !!python/object/apply:os.system [true]", "cannot be read as a configuration"),
    ],
)
def test_a_hostile_configuration_is_one_line(text: str, message: str, tmp_path: Path, capsys):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(text)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read_run_config(run / "config.yaml")
    assert main(["test", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_data_devices_and_seed_are_all_that_is_taken():
    config = {
        "seed_everything": 3,
        "name": "x",
        "trainer": {
            "devices": 1,
            "accelerator": "cpu",
            "precision": "bf16-mixed",
            "max_epochs": 3,
            "profiler": "simple",
        },
        "data": {
            "dataset": "folder",
            "root": "/pictures",
            "augment": {"flip": 0.5},
            "img_size": 32,
            "normalize": ["x"],
        },
        "model": {"arch": "x"},
    }
    assert settings_to_measure(config) == {
        "seed_everything": 3,
        "trainer": {"devices": 1, "accelerator": "cpu", "precision": "bf16-mixed"},
        "data": {"dataset": "folder", "root": "/pictures", "img_size": 32},
    }
    assert settings_to_measure({"trainer": "x", "data": 3, "seed_everything": "7"}) == {}
    odd = {"accelerator": "package.Module", "precision": {"class_path": "x"}, "devices": [0, 1]}
    assert settings_to_measure({"trainer": odd}) == {"trainer": {"devices": [0, 1]}}
    assert settings_to_measure({"trainer": {"accelerator": "CPUAccelerator", "devices": "auto"}}) == {
        "trainer": {"devices": "auto"}
    }


@pytest.mark.parametrize("verb", MEASURE)
def test_no_verb_measures_a_checkpoint_whose_classes_are_in_another_order(verb: str, run: Path, capsys):
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[DATA_KEY]["label_names"].reverse()
    torch.save(checkpoint, path)
    assert main([verb, f"--ckpt_path={path}", *MEASURE[verb]]) == 2
    assert "the checkpoint is of other classes than coins: class 0 is " in capsys.readouterr().err
    assert not {"test.json", "predictions.csv", "judge"} & {each.name for each in run.iterdir()}


def test_callbacks_whose_defaults_are_objects_are_kept_as_words(tmp_path: Path):
    run = fit(
        tmp_path, "--trainer.max_epochs=1", "--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:01:00:00"
    )
    (timer,) = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert timer["init_args"]["interval"] == "step"
    assert main(["fit", "-c", str(run / "config.yaml"), f"--runs={tmp_path / 'again'}"]) == 0
