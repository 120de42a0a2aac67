import pytest

from vit_attn.commands.parsing.errors import summarize_error

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
        ("something\n  else", "something else"),
    ],
)
def test_a_long_message_becomes_one_line(message, line):
    assert summarize_error(message) == line
