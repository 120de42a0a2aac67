import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.runs import fit
from vit_attn.checkpoints.model_card import DATA_KEY
from vit_attn.cli import main
from vit_attn.commands.run.stored_config import evaluation_settings, read_run_config
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
    """Copy of the trained run for one test."""
    return shutil.copytree(trained, tmp_path / "runs" / "vit" / "1")


def hostile(folder: Path) -> dict:
    """Settings that would write files, import modules or unpickle if they were built."""
    profiler = {"class_path": "SimpleProfiler", "init_args": {"dirpath": str(folder), "filename": "profiled"}}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder / "logged")}}
    callback = {"class_path": "DeviceStatsMonitor", "init_args": {}}
    strategy = {"class_path": "no_such_module.Strategy"}
    trainer = {"profiler": profiler, "logger": [logger], "callbacks": [callback], "plugins": [strategy]}
    trainer |= {"strategy": strategy, "accelerator": "no_such_module.Accelerator", "default_root_dir": str(folder)}
    return {"trainer": trainer, "weights_only": False, "ckpt_path": str(folder / "other.ckpt")}


@pytest.mark.parametrize("command", MEASURE)
def test_nothing_in_the_configuration_of_a_checkpoints_run_is_built(command: str, run: Path, tmp_path: Path, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    evil = hostile(tmp_path / "written")
    config |= evil | {"trainer": config["trainer"] | evil["trainer"], "no_such_section": {"a": 1}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main([command, f"--model={run / 'checkpoints' / 'best.ckpt'}", *MEASURE[command]]) == 0
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\n" + "b: &a [*a, *a, *a, *a, *a, *a, *a, *a]\n" * 10, "including those that aliases repeat"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("- a list", "is not the configuration of a run"),
        ("a: [", "cannot be read as a configuration"),
        ("a: !!python/object/apply:os.system [true]", "cannot be read as a configuration"),
    ],
)
def test_a_hostile_configuration_is_a_one_line_error(text: str, message: str, tmp_path: Path, capsys):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(text)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read_run_config(run / "config.yaml")
    assert main(["test", f"--model={run / 'checkpoints' / 'best.ckpt'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_only_data_devices_and_seed_are_used_to_evaluate():
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
    assert evaluation_settings(config) == {
        "seed_everything": 3,
        "trainer": {"devices": 1, "accelerator": "cpu", "precision": "bf16-mixed"},
        "data": {"dataset": "folder", "root": "/pictures", "img_size": 32},
    }
    assert evaluation_settings({"trainer": "x", "data": 3, "seed_everything": "7"}) == {}
    odd = {"accelerator": "package.Module", "precision": {"class_path": "x"}, "devices": [0, 1]}
    assert evaluation_settings({"trainer": odd}) == {"trainer": {"devices": [0, 1]}}
    assert evaluation_settings({"trainer": {"accelerator": "CPUAccelerator", "devices": "auto"}}) == {
        "trainer": {"devices": "auto"}
    }


@pytest.mark.parametrize("command", MEASURE)
def test_no_command_evaluates_a_checkpoint_whose_classes_are_in_another_order(command: str, run: Path, capsys):
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[DATA_KEY]["label_names"].reverse()
    torch.save(checkpoint, path)
    assert main([command, f"--model={path}", *MEASURE[command]]) == 2
    assert "the checkpoint is of other classes than coins: class 0 is " in capsys.readouterr().err
    assert not {"test.json", "predictions.csv", "judge"} & {each.name for each in run.iterdir()}


def test_defaults_of_callbacks_that_are_objects_are_stored_as_texts(tmp_path: Path):
    run = fit(
        tmp_path, "--trainer.max_epochs=1", "--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:01:00:00"
    )
    (timer,) = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert timer["init_args"]["interval"] == "step"
    assert main(["fit", "-c", str(run / "config.yaml"), f"--runs={tmp_path / 'again'}"]) == 0


@pytest.mark.parametrize("verb", ["fit", "test", "judge"])
def test_a_run_of_an_earlier_version_keeps_a_setting_that_was_renamed(verb: str, run: Path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["data"]["skip_corrupt"]
    config["data"]["skip_damaged"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run_config(run / "config.yaml")["data"]["skip_corrupt"] is True
    if verb == "fit":
        assert main(["fit", f"--resume={run}", "--trainer.max_epochs=2", *TINY]) == 0
        resumed = yaml.safe_load((run / "config.yaml").read_text())["data"]
        assert (resumed["skip_corrupt"], "skip_damaged" in resumed) == (True, False)
    else:
        assert main([verb, f"--model={run / 'checkpoints' / 'best.ckpt'}", *MEASURE[verb]]) == 0


def test_the_old_name_of_an_option_is_answered_with_the_new_one(tmp_path: Path, capsys):
    assert main(["fit", "--data.dataset=coins", f"--runs={tmp_path}", "--data.skip_damaged=true"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--data.skip_damaged, did you mean '--data.skip_corrupt'" in line
