import logging
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from vit_attn import cli
from vit_attn.errors import (
    LONGEST_LINE,
    NOT_FOR_USERS,
    UserError,
    missing_package,
    one_line,
    printable,
    shortened,
    some_of,
)

HOSTILE = "a\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202egnp.b\u2028"


def test_no_control_character_reaches_the_terminal():
    assert printable(HOSTILE) == r"a\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202egnp.b\u2028"
    assert printable("two\nlines\x1b", keep="\n") == "two\nlines\\x1b"
    assert printable("café 猫 👩‍🚀 \udce9") == "café 猫 👩‍🚀 \udce9"  # what is written somewhere in the world stays


def test_what_is_long_loses_its_middle():
    text = "".join(str(number) for number in range(5000))
    assert len(shortened(text)) <= LONGEST_LINE
    assert shortened(text).startswith("0123")
    assert shortened(text).endswith("4999")
    assert shortened("short") == "short"
    assert some_of(["a", "b"]) == "a, b"
    assert len(one_line("\x00" * 10_000)) <= LONGEST_LINE


@pytest.mark.parametrize("kind", [UserError, OSError])
def test_an_error_about_hostile_names_is_one_short_line(kind, monkeypatch, capsys):
    def fail(_args):
        raise kind(HOSTILE + "x" * 100_000 + "\nthe end")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["fit"]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < LONGEST_LINE + 20
    assert error.isprintable() or error.rstrip("\n").isprintable()
    assert error.endswith("\\nthe end\n")


def test_what_is_nested_too_deep_is_one_line(monkeypatch, capsys):
    def recurse(_args):
        return recurse(_args)

    monkeypatch.setattr(cli, "_dispatch", recurse)
    assert cli.main(["fit"]) == 2
    assert capsys.readouterr().err == "vit-attn: the input is nested too deep to be read\n"


def test_lines_of_the_log_are_printable(monkeypatch, caplog):
    monkeypatch.setattr(cli, "_dispatch", lambda _args: 0)
    assert cli.main([]) == 0
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level("INFO", logger=log.name):
        log.info("left out: %s\n", HOSTILE)
    assert caplog.messages == [r"left out: a\x1b[2J\x1b]0;owned\x07\r" + "\n" + r"\x9b31m\u202egnp.b\u2028" + "\n"]


PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
OPTIONAL = [
    (re.match(r"[\w-]+", requirement)[0], extra)
    for extra, requirements in PROJECT["optional-dependencies"].items()
    if extra not in NOT_FOR_USERS
    for requirement in requirements
]


@pytest.mark.parametrize(("package", "extra"), OPTIONAL)
def test_the_error_of_a_missing_package_names_the_extra_that_brings_it(package: str, extra: str):
    line = str(missing_package("this", package))
    assert line == f"this needs {package}, which is not installed: pip install 'vit_attn[{extra}]'"


def test_a_missing_package_of_no_extra_is_installed_by_its_own_name(monkeypatch: pytest.MonkeyPatch):
    line = "this needs tensorflow-datasets, which is not installed: pip install tensorflow-datasets"
    assert str(missing_package("this", "tensorflow-datasets")) == line
    assert "install dataset" in str(missing_package("this", "dataset"))  # of which datasets is no example

    def absent(_name):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", absent)
    assert str(missing_package("this", "scipy")) == "this needs scipy, which is not installed: pip install scipy"
