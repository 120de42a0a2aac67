import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from vit_attn.cli import find_commands, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_python_runs_as_written():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["rollout"](names["recording"], [1, 2, 3]).shape == (2, 3, 197)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:configs|scripts|docs)/[\w/.]+\w", README))))
def test_what_the_readme_names_exists(path: str):
    assert (ROOT / path).exists()


def test_the_readmes_commands_exist():
    commands = set(re.findall(r"^vit-attn ([\w-]+)", README, re.MULTILINE))
    assert commands
    assert commands <= set(find_commands())


PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
SETTINGS = sorted({option for text in PAGES.values() for option in re.findall(r"(?<![\w-])--(\w+(?:\.\w+)+)", text)})
COMMANDS = sorted(
    {
        line
        for text in PAGES.values()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("vit-attn ")
    }
)


def options_of(command: str) -> set[str]:
    """Options in the help of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([command, "--help=all" if command in ("fit", "validate", "test") else "--help"])
    return set(re.findall(r"(?<![\w-])--?[\w.]+", text.getvalue()))


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    options = {command: options_of(command) for command in find_commands()}
    return options | {"sweep": options["sweep"] | options["fit"]}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_of_the_pages_is_one_of_fit(setting: str, known: dict[str, set[str]]):
    if setting == "data.class_path" or any(setting in line and "--data=" in line for line in COMMANDS):
        return  # of a data module that the page defines
    inner = [
        name for name in ("model.arch_options", "trainer.callbacks", "trainer.logger") if setting.startswith(f"{name}.")
    ]
    assert f"--{inner[0] if inner else setting}" in known["fit"]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_of_the_pages_commands_exists(line: str, known: dict[str, set[str]]):
    _, command, *words = shlex.split(line, comments=True)
    given = {word.partition("=")[0].rstrip("+") for word in words if word.startswith("-")}
    if "--data" in given:  # a data module that the page defines
        given = {option for option in given if not option.startswith("--data")}
    assert {option for option in given if option.count(".") < 2} <= known[command] | {"--import"}


def test_the_readmes_mistake_is_answered_as_it_says(capsys: pytest.CaptureFixture[str]):
    call, answer = re.search(r"^\$ vit-attn (.*)\n(.*?) …$", README, re.MULTILINE).groups()
    assert main(shlex.split(call)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(answer)
