from pathlib import Path

import pytest

from vit_attn.console import CONSOLE
from vit_attn.reports.run_log import RunLog


def texts(path: Path) -> list[str]:
    return [line.partition("  ")[2] for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_line_that_the_console_says_and_the_error_are_written(tmp_path: Path):
    path = tmp_path / "train.log"

    def run() -> None:
        with RunLog(path, tmp_path / "config.yaml"):
            CONSOLE.say("before it begins")
            assert not path.exists()
            (tmp_path / "config.yaml").touch()
            CONSOLE.say("\nepoch 1\nepoch \x1b[2J2\r")
            raise KeyError("end")

    with pytest.raises(KeyError):
        run()
    assert texts(path) == ["before it begins", "epoch 1", r"epoch \x1b[2J2\r", "KeyError: 'end'"]


def test_a_log_is_continued_and_leaves_nothing_behind(tmp_path: Path):
    listeners = list(CONSOLE.listeners)
    for number in range(2):
        with RunLog(tmp_path / "train.log", tmp_path):
            CONSOLE.say(f"part {number}")
        CONSOLE.say("between")
    assert texts(tmp_path / "train.log") == ["part 0", "part 1"]
    assert CONSOLE.listeners == listeners


def test_a_run_goes_on_without_a_log_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "train.log").mkdir()
    with RunLog(tmp_path / "train.log", tmp_path):
        CONSOLE.say("unheard")
        assert CONSOLE.listeners == []
    assert "train.log could not be written" in capsys.readouterr().out
