import re

import pytest

from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser, summarize_error
from vit_attn.errors import UserError

UNION = """Parser key "data.augment":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'vit_attn.data.transforms.augment.Augment'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'vit_attn.data.Augment':
        Option 'mixu' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='mixu', val='7')"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (UNION, "unknown option --data.augment.mixu"),
        (
            "Parser key \"model.decay\":\n  Expected a typing.Literal['cosine', 'linear']. Got value: cosin",
            "model.decay: expected 'cosine', 'linear', got 'cosin'",
        ),
        (
            "unrecognized arguments: configs/a.yaml",
            "unexpected argument 'configs/a.yaml'; name configuration files with -c",
        ),
        ("Subcommand 'fit' does not accept option 'model.lrr'", "unknown option --model.lrr"),
        (
            'Parser key "config":\n  Unexpected config: a,b\n1,2',
            "config: the file holds no settings, which are lines such as 'model:' and, below it, '  lr: 1e-3'",
        ),
        ("something\n  else", "something else"),
    ],
)
def test_a_long_message_becomes_one_line(message, line):
    assert summarize_error(message) == line


def test_a_missing_configuration_file_is_suggested_by_its_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").touch()
    message = f"Parser key \"config\":\n  File does not exist: '{tmp_path / 'config' / 'a.yaml'}'"
    assert summarize_error(message) == "config: there is no file config/a.yaml, did you mean 'configs/a.yaml'?"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["runs", "net.onnx"], "unexpected argument 'runs'; name the network with --model runs"),
        (["a.png", "-m", "runs"], "unknown option -m, did you mean '--model'?"),
        (["a.png"], "the following arguments are required: --model"),
    ],
)
def test_a_network_that_is_not_named_with_model_is_recognised(tmp_path, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "checkpoints" / "best.ckpt").touch()
    (tmp_path / "a.png").touch()
    parser = CommandParser(allow_abbrev=False)
    add_network_options(parser)
    parser.add_argument("images", nargs="*")
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        parser.parse_args(args)
