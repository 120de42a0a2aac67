import logging

import pytest

from vit_attn import cli
from vit_attn.errors import LONGEST_LINE, UserError, one_line, printable, shortened, some_of

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
