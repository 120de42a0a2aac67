import logging
import warnings
from pathlib import Path

import pytest

from vit_attn.reports.run_log import LOGGERS, RunLog, note


def texts(path: Path) -> list[str]:
    return [line.partition("  ")[2] for line in path.read_text(encoding="utf-8").splitlines()]


def test_messages_warnings_printed_lines_and_the_error_are_written(tmp_path: Path):
    path, logger = tmp_path / "run" / "train.log", logging.getLogger("lightning.pytorch")

    def run() -> None:
        with RunLog(path):
            logger.warning("from %s", "lightning")
            warnings.warn("rare", stacklevel=1)
            note("\nepoch 1\nepoch \x1b[2J2\r")
            raise KeyError("end")

    with pytest.warns(UserWarning, match="rare"), pytest.raises(KeyError):
        run()
    assert texts(path) == ["from lightning", "warning: rare", "epoch 1", r"epoch \x1b[2J2", "KeyError: 'end'"]


def test_a_log_is_continued_and_leaves_nothing_behind(tmp_path: Path):
    show, handlers = warnings.showwarning, [list(logging.getLogger(name).handlers) for name in LOGGERS]
    for number in range(2):
        with RunLog(tmp_path / "train.log"):
            note(f"part {number}")
        note("between")
    assert texts(tmp_path / "train.log") == ["part 0", "part 1"]
    assert warnings.showwarning is show
    assert [list(logging.getLogger(name).handlers) for name in LOGGERS] == handlers


def test_a_run_goes_on_without_a_log_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "train.log").mkdir()
    with pytest.warns(UserWarning, match=r"train\.log could not be written"), RunLog(tmp_path / "train.log"):
        note("unheard")
