"""Completion in real shells: what Tab offers for a line, from the printed scripts."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vit_attn.cli import find_commands, main
from vit_attn.commands.parsing.completions import DATASETS, completions_of
from vit_attn.data.datasets import registry

LIGHTNINGS = ["bf16", "bf16-mixed", "bf16-true"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a run and a picture whose name has a space."""
    (tmp_path / "runs" / "vit").mkdir(parents=True)
    (tmp_path / "my photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture) -> Path:
    assert main(["completion", shell]) == 0
    path = folder / f".completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def offered(path: Path, words: list[str]) -> list[str]:
    """What bash offers for the last of these words, as readline splits them."""
    line = (
        f"source {shlex.quote(str(path))}; COMP_WORDS=({' '.join(map(shlex.quote, ['vit-attn', *words]))}); "
        f"COMP_CWORD={len(words)}; _vit_attn; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "--norc", "-c", line], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split("\n")[:-1])


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes_commands_options_by_group_values_and_files(folder: Path, capsys):
    path = script("bash", folder, capsys)
    assert offered(path, ["ex"]) == ["explore", "export", "export-html"]
    assert offered(path, ["fit", "--mo"]) == ["--model."]
    assert offered(path, ["fit", "--model.w"]) == ["--model.warmup", "--model.weight_decay", "--model.weights"] + (
        ["--model.whiten"] if any(each.name == "--model.whiten" for each in completions_of("fit")) else []
    )
    assert offered(path, ["fit", "--lr"]) == ["--model.lr"]
    assert {"--data.", "--trainer.", "--model.", "--name"} <= set(offered(path, ["fit", "--"]))
    assert offered(path, ["test", "--mo"]) == ["--model"]
    assert "--ckpt_path" not in offered(path, ["test", "--"])
    assert offered(path, ["fit", "--trainer.precision", "bf"]) == LIGHTNINGS
    assert offered(path, ["fit", "--trainer.precision", "=", "bf"]) == LIGHTNINGS
    assert offered(path, ["fit", "--trainer.precision=bf"]) == [f"--trainer.precision={each}" for each in LIGHTNINGS]
    assert offered(path, ["fit", "--trainer.enable_progress_bar", "="])[-2:] == ["runs", "true"]
    assert offered(path, ["test", "--model", "ru"]) == ["runs"]
    assert offered(path, ["test", "--model", "=", "runs/"]) == ["runs/vit"]
    assert offered(path, ["attend", "my"]) == ["my photo.jpg"]
    assert offered(path, ["predict", "--overwrite", "my"]) == ["my photo.jpg"]
    assert offered(path, ["export", "--with_normalize", "u"]) == ["uint8", "unit"]
    assert offered(path, ["completion", ""]) == ["--help", "--import", "bash", "zsh"]


ZPTY = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; unsetopt zle_bracketed_paste; bindkey "^I" complete-word; LISTMAX=1000'
zpty -w shell 'source {script} && echo REA''DY'
zpty -r -m shell line '*READY*'
zpty -w -n shell {typed}$'\\t'
zpty -w -n shell $'\\x01echo "<\\x05>"\\n'
zpty -r -m shell line '*[^"]<*>[^"]*'
print -r -- "$line"
zpty -d shell
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("vit-attn pred", "<vit-attn predict>"),
        ("vit-attn fit --mod", "<vit-attn fit --model.>"),
        ("vit-attn fit --model.opt", "<vit-attn fit --model.optimizer>"),
        ("vit-attn fit --trainer.precision=bf16-m", "<vit-attn fit --trainer.precision=bf16-mixed>"),
        ("vit-attn test --model ru", "<vit-attn test --model runs>"),
    ],
)
def test_zsh_completes_commands_options_by_group_values_and_files(typed: str, expected: str, folder: Path, capsys):
    path = script("zsh", folder, capsys)
    line = ZPTY.format(script=shlex.quote(str(path)), typed=shlex.quote(typed))
    done = subprocess.run(["zsh", "-f", "-c", line], capture_output=True, text=True, check=False, timeout=120)
    assert expected in done.stdout, done.stdout + done.stderr


def test_every_command_and_data_set_is_completed(folder: Path, capsys):
    assert DATASETS == (*registry.DATASETS, *registry.OWN)
    for shell in ("bash", "zsh"):
        text = script(shell, folder, capsys).read_text()
        assert all(f"    {command}) options=" in text for command in find_commands())


def test_the_script_is_printed_without_torch():
    check = "import sys\nfrom vit_attn.cli import main\nmain(['completion', 'bash'])\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("complete -F _vit_attn vit-attn\n")


def test_another_shell_is_a_one_line_error(capsys):
    assert main(["completion", "fish"]) == 2
    assert "invalid choice: 'fish' (choose from" in capsys.readouterr().err
