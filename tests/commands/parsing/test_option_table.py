import importlib.metadata
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from vit_attn.commands.parsing.option_table import ANY, LIGHTNINGS_GROUPS, PATH, Option, options_of

SCRIPT = Path(__file__).parents[3] / "scripts" / "option_table.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_real_parser(script: ModuleType):
    written, real = json.loads(PATH.read_text()), script.make_table()
    same_version = written["lightning"] == importlib.metadata.version("lightning")
    tables = [
        {each["name"]: each for each in table["options"] if same_version or is_ours(each["name"])}
        for table in (written, real)
    ]
    differing = sorted(name for name in {**tables[0], **tables[1]} if tables[0].get(name) != tables[1].get(name))
    assert not differing, "the table of options is out of date: run `.venv/bin/python scripts/option_table.py`"


def is_ours(name: str) -> bool:
    group, dot, _ = name.partition(".")
    return bool(dot) and group not in LIGHTNINGS_GROUPS


def test_a_command_has_its_own_options():
    names = {command: {option.name for option in options_of(command)} for command in ("fit", "test", "predict")}
    assert names["test"] - names["fit"] == {"verbose"}
    assert names["predict"] - names["fit"] == {"return_predictions"}


def test_types_are_those_that_python_reads():
    option = {each.name: each for each in options_of("fit")}
    assert option["model.lr"].annotation is float
    assert option["data.img_size"].annotation == int | list[int] | None
    assert option["trainer.callbacks"].type == ANY
    assert Option("x", "list[int] | None", None, "").annotation == list[int] | None


def test_a_type_with_a_class_is_left_to_the_whole_parser(script: ModuleType):
    assert script.type_text(dict[str, Path]) == "dict[str, Path]"
    assert script.type_text(dict[str, ModuleType] | None) == ANY
    assert script.type_text(tuple[int, ...]) == "tuple[int, ...]"
    assert script.type_text(list) == ANY


def test_a_description_is_its_first_sentence(script: ModuleType):
    assert script.first_sentence("Rate ``lr``,\n e.g. 0.1. More (see :class:`x`).") == "Rate lr, e.g. 0.1."
    assert script.first_sentence("One") == "One"
