import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import runs
from vit_attn.checkpoints.contents import RUN_KEY
from vit_attn.data.loading.limits import Limit
from vit_attn.reports.report_files import find_data_difference, name_report_files

LIMIT = Limit("trainer.limit_test_batches=1", 16, 30)


def names(*args, **options) -> tuple[str, str, bool]:
    files = name_report_files(*args, **options)
    return files.report.name, files.picture.name, files.of_run


def test_a_whole_test_on_the_images_of_the_run_has_the_plain_name(tmp_path: Path):
    assert names(tmp_path, "r/best.ckpt", None, "coins") == ("test.json", "confusion.png", True)
    (tmp_path / "test.json").write_text(json.dumps({"checkpoint": "/moved/best.ckpt"}))
    assert names(tmp_path, "r/best.ckpt", None, "coins") == ("test.json", "confusion.png", True)


@pytest.mark.parametrize(
    ("limit", "other", "name", "reason"),
    [
        (LIMIT, None, "test.limited.json", "of 30 images 16 are tested, by trainer.limit_test_batches=1"),
        (None, "images is 3 here and 4 there", "test.folder_a_b.json", "not the images of the run: images is 3 here"),
        (LIMIT, "images is 3 here and 4 there", "test.folder_a_b.limited.json", "not the images of the run"),
    ],
)
def test_any_other_test_has_its_own_file_name_and_a_reason(tmp_path: Path, limit, other, name: str, reason: str):
    files = name_report_files(tmp_path, "best.ckpt", limit, "folder /a/b", other)
    assert files.report.name == name
    assert files.picture.name == name.replace("test", "confusion").replace("json", "png")
    assert reason in files.reasons[0]
    assert not files.of_run


def test_a_test_of_another_checkpoint_does_not_replace_the_existing_report(tmp_path: Path):
    (tmp_path / "test.json").write_text(json.dumps({"checkpoint": "checkpoints/best.ckpt"}))
    files = name_report_files(tmp_path, "checkpoints/last.ckpt", None, "coins")
    assert (files.report.name, files.picture.name, files.of_run) == ("test.last.json", "confusion.last.png", True)
    assert files.reasons == ["test.json is of best.ckpt and stays as it is"]
    for damaged in ("no json", "[1]", '{"checkpoint": 3}'):
        (tmp_path / "test.json").write_text(damaged)
        assert names(tmp_path, "checkpoints/last.ckpt", None, "coins")[0] == "test.json"


def test_images_count_as_those_of_the_run_unless_a_fingerprint_differs():
    class Data:
        cache = SimpleNamespace(tested_on="test")
        splits: ClassVar = {"test": SimpleNamespace(held_out=False)}

        def fingerprint(self):
            return {"dataset": "coins", "images": {"test": 3}}

    assert find_data_difference({}, Data()) is None
    assert find_data_difference({RUN_KEY: {"data": {"dataset": "coins", "files": "ab"}}}, Data()) is None
    assert find_data_difference({RUN_KEY: {"data": {"images": {"test": 4}}}}, Data()) == (
        "images is {'test': 3} here and {'test': 4} there"
    )
    Data.splits["test"].held_out = True
    output = find_data_difference({RUN_KEY: {"data": {"images": {"test": 4}}}}, Data())
    assert str(output).endswith("held out of other images than the run's, so it may have trained on some")


def test_no_other_test_replaces_the_whole_test_of_a_run(tmp_path: Path, capsys, caplog, monkeypatch):
    folder = runs.fit(tmp_path)
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    quiet = "--trainer.enable_progress_bar=false"
    assert runs.main(["test", f"--model={best}", quiet]) == 0
    whole = (folder / "test.json").read_text()
    assert json.loads(whole) | {"images": 128, "limited": None} == json.loads(whole)
    picture = (folder / "confusion.png").read_bytes()
    capsys.readouterr()
    assert runs.main(["test", f"--model={best}", quiet, "--trainer.limit_test_batches=0"]) == 2
    assert "trainer.limit_test_batches=0 leaves nothing to test" in capsys.readouterr().err
    caplog.set_level("INFO")
    for limit in ("limit_test_batches=1", "limit_test_batches=0.5", "fast_dev_run=true"):
        assert runs.main(["test", f"--model={best}", quiet, f"--trainer.{limit}"]) == 0
        assert "not test.json: of 128 images" in capsys.readouterr().out
        assert "test is limited to" in caplog.text
        caplog.clear()
        assert limit.split("=")[0] in json.loads((folder / "test.limited.json").read_text())["limited"]
    assert runs.main(["test", f"--model={last}", quiet]) == 0
    assert "not test.json: test.json is of best.ckpt and stays as it is" in capsys.readouterr().out
    assert json.loads((folder / "test.last.json").read_text())["checkpoint"] == str(last)
    monkeypatch.setitem(runs.FEW, "test", 64)
    assert runs.main(["test", f"--model={best}", quiet]) == 0
    assert "not test.json: these are not the images of the run: images is" in capsys.readouterr().out
    assert json.loads((folder / "test.coins.json").read_text())["images"] == 64
    assert (folder / "test.json").read_text() == whole
    assert (folder / "confusion.png").read_bytes() == picture
    shown = {each.value for each in EventAccumulator(str(folder)).Reload().Scalars("test/accuracy")}
    tested = {json.loads((folder / f"{name}.json").read_text())["top1"] for name in ("test", "test.last")}
    assert sorted(shown) == pytest.approx(sorted(tested))
