import pytest

from vit_attn.cli import main
from vit_attn.commands.run.name import check_run_name
from vit_attn.errors import UserError

BAD = [
    "",
    " ",
    ".",
    "..",
    "../x",
    "a/../../x",
    "/tmp/x",
    "a/",
    "a//b",
    "a\x00b",
    "a\nb",
    "a\x1b[2J",
    "C:\\x",
    "a\\..\\b",
    "x" * 300,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leaves_the_folder_of_runs_is_refused(name: str):
    with pytest.raises(UserError, match=r"^name must "):
        check_run_name(name)


@pytest.mark.parametrize("name", ["vit", "ablation/no_mixup", "lr=0.1", "..x", "a.b", "café 猫", "x" * 200])
def test_other_names_are_accepted(name: str):
    check_run_name(name)


@pytest.mark.parametrize("option", ["--name=../../elsewhere", "--name=/elsewhere", "--name=", "--runs=", "--runs=a\nb"])
def test_the_command_line_refuses_them_before_anything_is_written(option: str, tmp_path, monkeypatch, capsys):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert main(["fit", "--data.dataset=coins", "--trainer.max_steps=1", "--trainer.limit_val_batches=0", option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vit-attn: {option[2:6]} must ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
