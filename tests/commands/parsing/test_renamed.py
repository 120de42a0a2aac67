"""Settings and classes by their names in earlier versions."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.runs import TINY, differences, fit, main, read, resume, stop_at
from vit_attn.commands.parsing import renamed
from vit_attn.commands.parsing.renamed import new_setting_name, rename_settings
from vit_attn.commands.run.resume import find_changes
from vit_attn.commands.run.stored_config import read_run_config
from vit_attn.training.checkpoint_io import WholeCheckpointIO

OLD_CLASSES = ["vit_attn.callbacks.TuningComparison", "vit_attn.callbacks.tuning_comparison.TuningComparison"]
OLD_CARD = {"class_names": "label_names", "img_size": "input_size", "crop": "crop_pct"}
"""Fields of the data in checkpoints of earlier versions, and their names now."""


@pytest.fixture(autouse=True)
def _renamed(monkeypatch: pytest.MonkeyPatch):
    """Pretend that ``data.readers`` and the group ``images`` were renamed."""
    monkeypatch.setitem(renamed.RENAMED_SETTINGS, "data.readers", "data.num_workers")
    monkeypatch.setitem(renamed.RENAMED_SETTINGS, "images", "data.augment")


def line_of(capsys: pytest.CaptureFixture, *options: str) -> str:
    assert main(["fit", "--data.dataset=coins", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_names_are_translated_alone_and_in_groups():
    assert new_setting_name("data.readers") == "data.num_workers"
    assert new_setting_name("images.flip") == "data.augment.flip"
    assert new_setting_name("data.readers_and_more") is None
    stored = {"data": {"readers": 3, "root": "a"}, "images": {"flip": 0.5}, "name": "x"}
    assert rename_settings(stored) == {"data": {"num_workers": 3, "root": "a", "augment": {"flip": 0.5}}, "name": "x"}
    assert stored["data"]["readers"] == 3
    assert rename_settings({"data": {"readers": 3, "num_workers": 4}}) == {"data": {"num_workers": 4}}
    for odd in ({"data": 3}, {"data": {"augment": 3}, "images": {"flip": 1}}, {}):
        assert "readers" not in str(rename_settings(odd))


def test_classes_are_translated_wherever_they_are():
    old, new = (
        {"trainer": {"callbacks": [{"class_path": path, "init_args": {"a": 1}}]}}
        for path in (OLD_CLASSES[1], "vit_attn.callbacks.FinetuneComparison")
    )
    assert rename_settings(old) == new


def test_an_old_option_is_a_one_line_error_with_the_new_name(capsys: pytest.CaptureFixture):
    expected = "vit-attn: unknown option --data.readers, did you mean '--data.num_workers'?"
    assert line_of(capsys, "--data.readers=3") == expected
    assert "did you mean '--data.augment.flip'?" in line_of(capsys, "--images.flip=0.5")


def test_an_old_name_in_a_configuration_file_is_one_too(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "a.yaml").write_text("data:\n  readers: 3\n")
    assert "--data.readers, did you mean '--data.num_workers'?" in line_of(capsys, "-c", str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("path", OLD_CLASSES)
def test_an_old_class_is_one_too(path: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    expected = f"trainer.callbacks: there is no class {path}, did you mean 'vit_attn.callbacks.FinetuneComparison'?"
    assert expected in line_of(capsys, f"--trainer.callbacks={path}")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": path}]}}))
    assert expected in line_of(capsys, "-c", str(tmp_path / "a.yaml"))


def test_a_run_with_old_names_is_resumed_and_tested_silently(tmp_path: Path, monkeypatch, capsys, caplog):
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "runs", "--data.augment.flip=0.5", code=143)
    config = yaml.safe_load((run / "config.yaml").read_text())
    path, state = run / "checkpoints" / "last.ckpt", read(run)
    for settings in (config, state["vit_attn"]["settings"]):
        settings["data"]["readers"] = settings["data"].pop("num_workers")
        settings["images"] = settings["data"].pop("augment")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(state, path)
    assert read_run_config(run / "config.yaml")["data"]["augment"]["flip"] == 0.5
    caplog.clear()
    resume(run)
    assert "changed" not in caplog.text
    assert read(run)["global_step"] == 15
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert (written["data"]["augment"]["flip"], "images" in written) == (0.5, False)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["test", f"--model={path}", "--trainer.enable_progress_bar=false"]) == 0
    assert "unknown option" not in capsys.readouterr().err


def test_a_setting_stored_under_its_old_name_is_compared_with_the_new_one():
    (change,) = find_changes({"images": {"flip": 0.5}}, {"data": {"augment": {"flip": 0.25}}})
    assert str(change) == "data.augment.flip 0.5 -> 0.25"


def test_the_state_of_a_renamed_callback_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start = fit(tmp_path / "start", "--trainer.max_epochs=1") / "checkpoints" / "best.ckpt"
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "runs", f"--model.weights={start}", "--comparison.num_images=1", code=143)
    path, state = run / "checkpoints" / "last.ckpt", read(run)
    state["callbacks"]["TuningComparison"] = state["callbacks"].pop("FinetuneComparison")
    torch.save(state, path)
    assert WholeCheckpointIO().load_checkpoint(path)["callbacks"]["FinetuneComparison"] == {"source": str(start)}
    resume(run)
    assert read(run)["callbacks"]["FinetuneComparison"] == {"source": str(start)}
    assert "TuningComparison" not in read(run)["callbacks"]


def test_an_old_class_without_its_module_is_one_too(capsys: pytest.CaptureFixture):
    line = line_of(capsys, "--trainer.callbacks=TuningComparison")
    assert line.endswith("did you mean 'vit_attn.callbacks.FinetuneComparison'?")


def test_a_run_of_an_earlier_version_ends_bit_for_bit_as_one_of_today(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.undo()
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "today", "--model.ema=0.9", code=143)
    earlier = tmp_path / "earlier" / run.name
    shutil.copytree(run, earlier)
    config, state = yaml.safe_load((run / "config.yaml").read_text()), read(run)
    for settings in (config, state["vit_attn"]["settings"]):
        settings["data"]["skip_damaged"] = settings["data"].pop("skip_corrupt")
        settings["attention"]["methods"] = ["relevance", "last layer", "rollout"]
    data = state["ImageData"]
    data |= {old: data.pop(new) for old, new in OLD_CARD.items()}
    data["img_size"] = data["img_size"][1:]
    state["callbacks"]["TuningComparison"] = {}
    (earlier / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(state, earlier / "checkpoints" / "last.ckpt")
    resume(run)
    caplog.clear()
    resume(earlier)
    assert "changed" not in caplog.text
    assert differences(read(run), read(earlier)) == []
    assert read(earlier)["ImageData"] == read(run)["ImageData"]


def test_every_new_name_is_an_option_and_every_old_one_is_not(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.undo()
    for old, new in renamed.RENAMED_SETTINGS.items():
        assert main(["fit", *TINY, f"--{old}=x"]) == 2
        assert f"unknown option --{old}, did you mean '--{new}'?" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main(["fit", "--help=all"])
        assert f"--{new}" in capsys.readouterr().out
