"""Options of ``sweep`` as they are typed: ranges, and the line that answers a wrong one."""

import shlex

import pytest

from vit_attn.cli import main
from vit_attn.commands.sweeping.search_space import Parameter, parse_parameter

WRONG = {
    "": "sweep needs a setting to search: --param NAME=VALUES",
    "--param": "expected one argument",
    "--param model.lr": "--param needs a setting and its values, such as model.lr=log:1e-4..1e-2",
    "--param lr=0.1..0.2": "fit has no setting 'lr', did you mean 'model.lr'?",
    "--param model.lrr=0.1..0.2": "fit has no setting 'model.lrr', did you mean 'model.lr'",
    "--param name=a,b": "--param: name is no setting of the training",
    "--param model.lr=0.1": "model.lr: 0.1 is a single value: give it as --model.lr=0.1, or more values",
    "--param model.lr=0.2..0.1": "the first number of a range must be less than the second, got '0.2..0.1'",
    "--param model.lr=0.1..nan": "the first number of a range must be less than the second, got '0.1..nan'",
    "--param model.lr=log:0..1": "a logarithmic range must begin above 0, got 'log:0..1'",
    "--param model.lr=low..high": "a range is LOW..HIGH, two numbers, got 'low..high'",
    "--param model.lr=1..2..3": "a range is LOW..HIGH, two numbers, got '1..2..3'",
    "--param model.lr=log:1,2": "log: needs a range, such as log:1e-4..1e-2",
    "--param model.optimizer=adamw,": "values must be given and differ, got 'adamw,'",
    "--param model.lr=1e-3,1e-2 --param model.lr=0.1..0.2": "model.lr is given twice",
    "--param model.lr=0.1..0.2 --trials 0": "--trials must be at least 1, got 0",
    "--param model.lr=0.1..0.2 --trials many": "argument --trials: invalid int value: 'many'",
    "--param model.lr=0.1..0.2 --prune hyperband": "invalid choice: 'hyperband'",
    "--param model.lr=0.1..0.2 --resume=last": "sweep has no --resume: a sweep resumes its own trials",
    "--param model.lr=0.1..0.2 --ckpt_path=x.ckpt": "sweep has no --ckpt_path: a trial starts anew",
    "--param model.lr=fast,slow": "model.lr: expected a number, got 'fast'",
    "--param model.lr=0.1..0.2 --model.lrr=3": "unknown option --model.lrr, did you mean '--model.lr'?",
    "--param model.lr=0.1..0.2 --name ../up": "name must name a folder within that of the runs",
}


@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_option_of_a_sweep_is_one_line_that_names_the_next_step(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *shlex.split(options)]) == 2
    output = capsys.readouterr()
    assert WRONG[options] in output.err
    assert output.err.count("\n") == 1
    assert not output.out
    assert not list(tmp_path.iterdir()), "a refused sweep leaves no folder"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.lr=log:1e-4..1e-2", Parameter("model.lr", (), 1e-4, 1e-2, log=True)),
        ("--model.weight_decay=0.0..1.0", Parameter("model.weight_decay", (), 0, 1)),
        ("model.arch_options.depth=2..6", Parameter("model.arch_options.depth", (), 2, 6, whole=True)),
        ("data.augment.mixup=0,0.8", Parameter("data.augment.mixup", ("0", "0.8"))),
        ("data.img_size=[32,32],[64, 48]", Parameter("data.img_size", ("[32,32]", "[64, 48]"))),
    ],
)
def test_a_range_is_of_whole_numbers_only_if_both_of_its_ends_are(text: str, expected: Parameter):
    assert parse_parameter(text) == expected
    assert parse_parameter(str(expected)) == expected


class Ends:
    """Proposes the greatest value of everything."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return high

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return high

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        return choices[-1]


def test_values_are_written_as_options_are():
    texts = ["model.lr=log:1e-4..0.123456789", "model.arch_options.depth=2..6", "model.optimizer=adamw,muon"]
    assert [parse_parameter(text).suggest(Ends()) for text in texts] == ["0.1235", "6", "muon"]
