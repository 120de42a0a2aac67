import re
from pathlib import Path

import pytest

from vit_attn.cli import find_commands

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
