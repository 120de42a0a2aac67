"""The Dockerfile against the repository; no test builds the image."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
KNOWN = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "ENTRYPOINT", "CMD"}
IN_IMAGE = {"pip", "apt-get", "rm", "useradd", "mkdir", "chown"}
"""Programs of python:slim, and of what is installed before they run."""


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def is_ignored(path: str) -> bool:
    """Tell whether the last matching line of .dockerignore leaves a path out."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch(path.partition("/")[0], pattern):
            ignored = not line.startswith("!")
    return ignored


def test_the_instructions_are_known_and_the_first_is_a_stage():
    assert {name for name, _ in instructions()} == KNOWN
    assert next(name for name, _ in instructions() if name in ("FROM", "RUN")) == "FROM"


def test_what_is_copied_is_in_the_repository_and_not_ignored():
    sources = [word for rest in of("COPY") if not rest.startswith("--from") for word in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    assert all(is_ignored(name) for name in (".venv", "runs", "data", "tests", ".git"))


def test_a_stage_that_is_copied_from_has_its_name():
    stages = {found[1] for rest in of("FROM") if (found := re.search(r" AS (\w+)$", rest))}
    assert {re.match(r"--from=(\w+)", rest)[1] for rest in of("COPY") if rest.startswith("--from")} == stages


def test_the_wheel_is_built_of_all_that_the_project_file_names():
    named = set(re.findall(r'"(README\.md|LICENSE|configs|vit_attn)["/]', (ROOT / "pyproject.toml").read_text()))
    assert named <= {word for rest in of("COPY") for word in rest.split()[:-1]}


def test_every_command_of_a_step_is_in_the_image():
    steps = [step for rest in of("RUN") for step in rest.split("&&")]
    assert {shlex.split(step)[0] for step in steps} <= IN_IMAGE


def test_the_program_is_that_of_the_package_and_runs_without_root():
    names = [name for name, _ in instructions()]
    assert of("ENTRYPOINT") == ['["vit-attn"]']
    assert 'vit-attn = "vit_attn.cli:main"' in (ROOT / "pyproject.toml").read_text()
    assert of("USER") == ["trainer"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
