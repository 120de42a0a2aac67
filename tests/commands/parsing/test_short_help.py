import re

import pytest

from vit_attn.commands.parsing import short_help as short_help_module
from vit_attn.commands.parsing.option_table import LIGHTNING_COMMANDS, LIGHTNINGS_GROUPS, Option, options_of
from vit_attn.commands.parsing.short_help import (
    EVALUATED,
    LONGEST,
    REWORDED,
    SHOWN,
    asks_for_help,
    group_help,
    short_help,
)
from vit_attn.errors import UserError


@pytest.mark.parametrize("width", [60, 80, 120, 300])
@pytest.mark.parametrize("command", LIGHTNING_COMMANDS)
def test_lines_fit_the_terminal(command: str, width: int):
    lines = short_help(command, "Do it.", width=width).splitlines()
    commands = [line for line in lines if line.startswith("  vit-attn")]  # to be copied, so never wrapped
    assert all(len(line) < 80 for line in commands) or width > 80
    assert max(len(line) for line in lines[:-1] if line not in commands) < min(width, LONGEST + 1)
    assert lines[:3] == [f"usage: vit-attn {command} [-c FILE] [--OPTION=VALUE] ...", "", "Do it."]


def test_the_help_of_fit_is_a_page_that_begins_with_examples_and_the_network():
    lines = short_help("fit", "", width=80).splitlines()
    assert len(lines) <= 70
    titles = [line for line in lines if line.endswith(":")]
    assert titles[:4] == ["examples:", "network and its training:", "images:", "logged attention:"]


def test_a_group_has_a_help_of_its_own():
    text = group_help("fit", "trainer", width=80)
    assert "--trainer.gradient_clip_val" in text
    assert "--trainer.log_every_n_steps" in text
    assert "--model." not in text
    with pytest.raises(UserError, match="no group of options 'trainr', did you mean 'trainer'"):
        group_help("fit", "trainr")


def test_the_help_of_an_evaluation_is_a_screen():
    assert len(short_help("test", "", width=80).splitlines()) <= 40


@pytest.mark.parametrize("command", LIGHTNING_COMMANDS)
def test_every_option_of_ours_is_named_and_the_last_line_leads_to_all(command: str):
    text = short_help(command, "")
    for name in [option.name for option in options_of(command) if not option.linked]:
        group, _, setting = name.rpartition(".")
        is_named = re.search(rf"--{name}\b|[ .]{setting}[,\n]", text)
        assert is_named or group in LIGHTNINGS_GROUPS or group.startswith("data.") or command != "fit", name
    assert text.splitlines()[-1].endswith(f"vit-attn {command} --help=all")


def test_a_line_has_the_description_and_the_default():
    lines = short_help("fit", "", width=120).splitlines()
    assert "  --model.weight_decay  Weight decay (0.05)" in lines
    assert "  --attention.every_n_epochs  Epochs from one logging to the next (1)" in lines
    assert "  --model.warmup        Fraction of the steps over which the rate rises (0.05)" in lines


def test_only_options_that_exist_are_described():
    names = {option.name for option in options_of("fit")}
    shown = {name if group == "run" else f"{group}.{name}" for group, shown in SHOWN.items() for name in shown}
    assert shown <= names
    assert REWORDED.keys() | EVALUATED.keys() <= names


def test_a_new_group_is_described(monkeypatch: pytest.MonkeyPatch):
    options = [*options_of("fit"), Option("throughput.flops", "float", 0.5, "Peak; of the card.")]
    monkeypatch.setattr(short_help_module, "options_of", lambda _: options)
    assert "throughput:\n  --throughput.flops  Peak (0.5)\n" in short_help("fit", "")


def test_an_option_of_the_command_alone_is_described():
    assert "--top_k            Classes per image" in short_help("predict", "", [("--top_k", "Classes per image")])


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["-h"], "short"),
        (["--model.lr=1", "--help"], "short"),
        (["--help=all"], "all"),
        (["--help", "all"], "all"),
        (["--help.trainer"], "trainer"),
        (["--help", "--name=all"], "short"),
        (["--name", "help"], None),
        ([], None),
    ],
)
def test_help_is_short_unless_all_is_asked_for(args: list[str], wanted: str | None):
    assert asks_for_help(args) == wanted
