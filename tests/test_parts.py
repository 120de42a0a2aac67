"""Import of the user's own modules by name: from where, who asks, and one line for each way in which it fails."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vit_attn import cli, parts
from vit_attn.errors import UserError
from vit_attn.parts import import_installed, import_part, imported_parts, split_imports


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder, of which nothing stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(parts, "_IMPORTED", {})
    yield tmp_path
    for name in ("lonely_part", "my_parts", "packaged_part"):
        sys.modules.pop(name, None)


def test_a_module_of_the_current_folder_is_imported_once_and_a_line_says_so(folder: Path, capsys):
    Path("lonely_part.py").write_text("count = 0\ncount += 1\n")
    import_part("lonely_part", "--import")
    import_part("lonely_part", "run/best.ckpt")
    assert sys.modules["lonely_part"].count == 1
    assert capsys.readouterr().err == "vit-attn: lonely_part imported from lonely_part.py, for --import\n"
    assert imported_parts() == ("lonely_part",)
    assert str(folder) == sys.path[-1]  # last: nothing in it hides an installed module


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import torch\nx = (1,\n", "lonely_part.py:2: '(' was never closed (SyntaxError)"),
        ("import os\n\nos.environ['NO_SUCH_NAME_HERE']\n", "lonely_part.py:3: KeyError: 'NO_SUCH_NAME_HERE'"),
        ("import sys\nsys.exit(3)\n", "lonely_part.py:2 ends the program while lonely_part is imported"),
        ("\nimport no_such_package_here\n", "lonely_part.py:2 needs the module 'no_such_package_here', which is not"),
        ("def f():\n    1 / 0\n\nf()\n", "lonely_part.py:2: ZeroDivisionError: division by zero"),
        (
            "import torch\nfrom vit_attn.model.scores import register_affinity as r\nr('cosine')(torch.nn.Identity)\n",
            "lonely_part.py:3: there is a score function 'cosine' already",
        ),
    ],
    ids=["syntax", "raises", "exits", "needs a package", "deep", "name is taken"],
)
def test_a_module_that_fails_is_one_line_with_the_users_file_and_line(folder: Path, text: str, line: str):
    Path("lonely_part.py").write_text(text)
    with pytest.raises(UserError) as error:
        import_part("lonely_part", "--import")
    assert str(error.value).startswith(f"--import: {line}")
    assert "lonely_part" not in imported_parts()


def test_a_module_that_prints_gets_its_first_line_on_the_other_stream(folder: Path, capsys):
    Path("lonely_part.py").write_text("print('hello')\nprint('again')\n")
    import_part("lonely_part", "--import")
    out, err = capsys.readouterr()
    assert out == ""
    assert "lonely_part printed while it was imported: hello and 1 more lines" in err


def test_a_missing_module_is_refused_with_the_folder_and_a_name_that_is_there(folder: Path):
    Path("my_parts.py").touch()
    with pytest.raises(UserError, match=rf"no module 'my_part' in the current folder, {folder}.*'my_parts'"):
        import_part("my_part", "--import")
    with pytest.raises(UserError, match=r"there is no module 'my_parts.nets'"):
        import_part("my_parts.nets", "--import")


@pytest.mark.parametrize("name", ["timm", "random"])
def test_a_file_that_hides_an_installed_module_is_refused_and_never_imported(folder: Path, name: str):
    Path(f"{name}.py").write_text("raise AssertionError")
    with pytest.raises(UserError, match=rf"{name}.py has the name of .*rename it"):
        import_part(name, "--import")


@pytest.mark.parametrize("name", ["os", "antigravity", "a-b", "os.system('x')", "..up", "a b", "", "/etc/x", "x" * 200])
def test_what_is_no_name_of_a_part_is_refused(folder: Path, name: str):
    with pytest.raises(UserError):
        import_part(name, "evil.ckpt")
    assert not parts._IMPORTED


def test_the_path_of_a_file_is_taken_as_its_name_below_the_current_folder_only(folder: Path):
    (folder / "nets").mkdir()
    for file in ("one.py", "nets/two.py", "nets/bad-name.py"):
        Path(file).touch()
    assert split_imports(["--import=one.py", "fit", "--import", "nets/two.py"]) == (["fit"], ["one", "nets.two"])
    assert split_imports(["fit", "--import", "./one.py", "--import=one"])[1] == ["one"]
    for path, message in [
        ("three.py", "there is no such file"),
        ("nets/bad-name.py", "letters, digits and _"),
        (__file__, rf"run this in {Path(__file__).parent} with --import test_parts"),
    ]:
        with pytest.raises(UserError, match=message):
            split_imports(["fit", "--import", path])
    with pytest.raises(UserError, match="needs the name of a module"):
        split_imports(["fit", "--import"])


def test_an_installed_package_names_its_parts_as_entry_points(folder: Path, monkeypatch, capsys):
    Path("packaged_part.py").touch()
    monkeypatch.syspath_prepend(str(folder))
    point = importlib.metadata.EntryPoint("any", "packaged_part", parts.GROUP)
    monkeypatch.setattr(parts, "entry_points", lambda group: [point] if group == parts.GROUP else [])
    import_installed()
    assert "packaged_part imported from packaged_part.py, an installed package" in capsys.readouterr().err
    assert imported_parts() == ()  # which needs no --import anywhere


def test_only_the_first_process_of_a_machine_says_what_is_imported(folder: Path, monkeypatch, capsys):
    Path("lonely_part.py").touch()
    monkeypatch.setenv("LOCAL_RANK", "1")
    import_part("lonely_part", "--import")
    assert capsys.readouterr().err == ""
    assert imported_parts() == ("lonely_part",)


def test_help_and_an_unknown_command_import_nothing(folder: Path, capsys):
    Path("lonely_part.py").write_text("raise AssertionError")
    for args in (["--import", "lonely_part"], ["--import=lonely_part", "nothing"]):
        cli.main(args)
    with pytest.raises(SystemExit):
        cli.main(["fit", "--import", "lonely_part", "--help"])
    assert "vit-attn fit" in capsys.readouterr().out


def test_the_module_of_parts_itself_does_not_import_torch(tmp_path: Path):
    code = "import sys, vit_attn.parts, vit_attn.cli; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, cwd=tmp_path, check=False
    )
    assert done.returncode == 0
