import re
import shutil
import subprocess

import pytest

from vit_attn.cli import main
from vit_attn.tb_plugin.export import bundle


@pytest.fixture
def run(tmp_path, write_step):
    for step in (0, 10, 20, 30):
        write_step(tmp_path / "run", step)
    return tmp_path / "run"


def test_the_file_shows_the_chosen_steps_and_images_without_a_server(run, page, capsys):
    assert main(["export-html", str(run), "--steps", "first,20", "--images", "2"]) == 0
    assert "attention.html: steps 0, 20" in capsys.readouterr().out
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((run / "attention.html").as_uri())
    page.get_by_text("step 20 · 2/2").wait_for()
    assert page.get_by_role("radiogroup", name="Probe images").get_by_role("radio").count() == 1
    assert page.get_by_text("<b>owl</b>").count() > 0
    page.locator("figure[data-name=Map] .marks").click(position={"x": 40, "y": 40})
    page.get_by_label("Training step").fill("0")
    page.get_by_text("step 0 · 1/2").wait_for()
    assert {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}


def test_the_modules_fit_into_one():
    source = bundle()
    assert not re.search(r"^(import|export) ", source, re.MULTILINE)
    if node := shutil.which("node"):
        done = subprocess.run(
            [node, "--check", "--input-type=module", "-"], input=source, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_no_label_can_end_the_script(run):
    assert main(["export-html", str(run)]) == 0
    assert "<b>owl" not in (run / "attention.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "7"], "step 7 was not logged; logged are 0, 10, 20, 30"),
        (["--steps", "frist"], "expected a number from 0, got 'frist'"),
        (["--images", "9"], "step 0 has images 1 to 2, not 9"),
        (["--images", "0"], "expected a number from 1, got '0'"),
        (["--pictures", "1"], "unknown option"),
    ],
)
def test_mistakes_cost_one_line(run, capsys, options, message):
    assert main(["export-html", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_attention_is_refused(tmp_path, capsys):
    assert main(["export-html", str(tmp_path)]) == 2
    assert "no attention was logged in" in capsys.readouterr().err
    assert main(["export-html", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_damaged_run_and_a_file_that_is_being_written(run, damage, capsys):
    file = max(run.iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["export-html", str(run), "--steps", "last"]) == 0
    assert "steps 20" in capsys.readouterr().out
    damage(run)
    assert main(["export-html", str(run), "--steps", "0"]) == 2
    assert "wrong checksum" in capsys.readouterr().err
