import io
import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.runs import fit, main
from tests.terminal import Screen, terminal
from vit_attn.commands.run.messages import ConsoleHandler, as_option, route_messages
from vit_attn.console import CONSOLE, is_interactive, wrap

BARS = {"ours": [], "tqdm": ["--trainer.callbacks=TQDMProgressBar"], "rich": ["--trainer.callbacks=RichProgressBar"]}


@pytest.fixture
def lightning_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Lightning's logger write, as it does where no test collects its records."""
    logger = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(sys.__stderr__)])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)


@pytest.mark.usefixtures("lightning_handler")
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("bar", BARS)
def test_every_message_remains_whole_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: str, columns: int
):
    options = ["--trainer.enable_progress_bar=true", "--attention.num_images=1", *BARS[bar]]
    with terminal(monkeypatch, columns) as screen:
        fit(tmp_path, *options)
    text = "\n".join(screen.lines()).replace("\n  ", " ")
    for message in ("network    vit_attn_tiny", "epoch 1/3: loss ", "epoch 3/3: loss ", "attention: logging took "):
        assert sum(line.startswith(message) for line in text.splitlines()) == 1, text
    assert "some of it beside the training\n" in text
    assert "v_num" not in text or bar != "ours"
    for gone in ("Total FLOPs", "Modules in train mode", "Epoch 1/2", "Tip:", "Seed set", "MulticlassAccuracy"):
        assert bar != "ours" or gone not in text
    assert "━" not in text or bar != "ours"


def test_without_a_terminal_an_epoch_is_a_line_and_there_are_no_control_characters(tmp_path: Path, capfd):
    fit(tmp_path, "--trainer.enable_progress_bar=true", "--attention.num_images=1")
    output, errors = capfd.readouterr()
    assert [line.split(":")[0] for line in output.splitlines() if line.startswith("epoch")] == [
        *("epoch 1/3", "epoch 2/3", "epoch 3/3")
    ]
    assert not {"\r", "\x1b", "\b"} & set(output + errors)
    (best,) = tmp_path.glob("*/*/checkpoints/best.ckpt")
    for command in ("test", "validate", "predict"):
        assert main([command, f"--model={best}"]) == 0
        output, errors = capfd.readouterr()
        assert not {"\r", "\x1b", "\b"} & set(output + errors)
        assert {"test": "top-1 accuracy", "validate": "validation: loss", "predict": "predictions of"}[
            command
        ] in output


def test_lines_wrap_at_words_and_paths_stay_whole():
    path = f"/runs/{'x' * 90}/best.ckpt"
    lines = wrap(f"its state is in {path}; to resume: vit-attn fit", 40)
    assert f"  {path};" in lines
    assert " ".join(line.strip() for line in lines) == f"its state is in {path}; to resume: vit-attn fit"
    assert all(cell_len(line) <= 40 for line in wrap("犬 " * 60, 40))


def test_listeners_get_each_line_before_it_is_wrapped(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(CONSOLE, "listeners", [lines.append])
    CONSOLE.say("one\n\x1b[2Jtwo\n")
    CONSOLE.say("three", sys.stderr)
    assert lines == ["one", "\\x1b[2Jtwo", "three"]
    assert capsys.readouterr() == ("one\n\\x1b[2Jtwo\n", "three\n")


def test_a_dumb_terminal_and_a_file_have_no_progress_bar(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    assert is_interactive()
    monkeypatch.setitem(os.environ, "TERM", "dumb")
    assert not is_interactive()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    assert not is_interactive()


@pytest.mark.usefixtures("lightning_handler")
def test_lightnings_messages_and_warnings_are_lines_of_the_console_in_the_words_of_the_command_line(
    capsys: pytest.CaptureFixture,
):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        route_messages()
        log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        log.warning("You can set it by doing `Trainer(accelerator='gpu')`.")
        log.warning("💡 Tip: For seamless cloud uploads, install this")
        print(warnings.formatwarning("Trainer(log_every_n_steps=10) is long", UserWarning, "", 1), end="")  # noqa: T201
    assert capsys.readouterr() == (
        "",
        "You can set it by doing --trainer.accelerator=gpu.\nwarning: --trainer.log_every_n_steps=10 is long\n",
    )
    kinds = [type(each) for each in logging.getLogger("lightning.pytorch").handlers]
    assert kinds.count(ConsoleHandler) == 1, kinds
    assert logging.StreamHandler not in kinds
    assert as_option("Trainer has stopped") == "Trainer has stopped"


def test_the_screen_of_these_tests_is_erased_as_a_terminal_is():
    screen = Screen(10)
    screen.feed("first\r\nbar\x1b[1A\r\x1b[2Kover\r\nlong line of text")
    assert screen.lines() == ["over", "long line", "of text"]
