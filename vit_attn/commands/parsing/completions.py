"""Options of all commands with their values, as the completion of a shell needs them; free of torch."""

import importlib
import re
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vit_attn.commands.parsing.option_table import LIGHTNING_COMMANDS, Option, options_of
from vit_attn.commands.parsing.short_help import EVALUATED_MODEL, FILES, OF_TRAINING, PRINTED, REWORDED

DATASETS = (
    *("cifar10", "cifar100", "coins", "mnist", "fashionmnist", "kmnist", "emnist", "emnist_letters", "qmnist", "usps"),
    *("svhn", "stl10", "flowers102", "food101", "oxfordiiitpet", "dtd", "eurosat", "gtsrb", "fgvcaircraft"),
    *("stanfordcars", "country211", "renderedsst2", "caltech101", "caltech256", "pcam", "sun397", "imagenette"),
    *("imagenet", "folder", "csv"),
)
"""Data sets, whose registry imports torch."""
DEVICES = ("auto", "cpu", "cuda")
VALUES = {
    "data.dataset": DATASETS,
    "dataset": DATASETS,
    "device": DEVICES,
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "trainer.devices": ("auto", "1", "2", "4", "8"),
    "fit": ("auto", "crop", "letterbox", "whole"),
    "weights": ("none",),
    "resume": ("last", "auto"),
}
"""Values of options whose types do not list them; others are possible, such as files."""
PICTURES = "pictures"
"""Name of the positional arguments for image files."""


SWEEP = "sweep"
"""Command that takes the options of ``fit`` beside its own."""


@dataclass(frozen=True)
class Completion:
    """Option of a command, as a shell completes it.

    Args:
        name: The option with its dashes, such as ``--model.lr``.
        help: Its description in a line.
        values: Values that are offered, beside files.
        takes_value: Whether a value follows.
    """

    name: str
    help: str
    values: Sequence[str] = ()
    takes_value: bool = True


IMPORT = Completion("--import", "Module of your own parts, imported first")
"""Option of all commands."""


def completions_of(command: str) -> list[Completion]:
    """List the options of a command, and the help of their groups.

    Args:
        command: Any command.
    """
    found: dict[str, Completion] = {}
    module = importlib.import_module(f"vit_attn.commands.{command.replace('-', '_')}")
    if hasattr(module, "make_parser"):
        found |= {each.name: each for each in _of_parser(module.make_parser())}
    if command in (*LIGHTNING_COMMANDS, SWEEP):
        of_table = _of_table("fit" if command == SWEEP else command)
        found |= {each.name: each for each in of_table if each.name not in found}
    found[IMPORT.name] = IMPORT
    return list(found.values())


def takes_files(command: str) -> bool:
    """Tell whether a command has positional arguments, which are files and folders."""
    module = importlib.import_module(f"vit_attn.commands.{command.replace('-', '_')}")
    parser: ArgumentParser | None = module.make_parser() if hasattr(module, "make_parser") else None
    return parser is not None and any(not action.option_strings for action in parser._actions)


def _of_parser(parser: ArgumentParser) -> Iterator[Completion]:
    for action in parser._actions:
        text = _first_clause(_formatted_help(parser, action))
        if not action.option_strings:
            yield from (Completion(str(each), text, takes_value=False) for each in action.choices or ())
        elif action.help != SUPPRESS:
            name = action.option_strings[-1]
            values = tuple(map(str, action.choices or VALUES.get(name.removeprefix("--"), ())))
            yield Completion(name, text, values, action.nargs != 0)


def _formatted_help(parser: ArgumentParser, action: Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _of_table(command: str) -> Iterator[Completion]:
    is_fit = command == "fit"
    options = [option for option in options_of(command) if not option.linked]
    options = [option for option in options if is_fit or not OF_TRAINING.match(option.name)]
    if not is_fit:
        yield Completion(EVALUATED_MODEL[0], _first_clause(EVALUATED_MODEL[1]))
    for option in options:
        text = REWORDED.get(option.name, option.help)
        yield Completion(f"--{option.name}", _first_clause(text), _values(option))
    yield Completion("--config", FILES[1])
    yield Completion(PRINTED[0], PRINTED[1], takes_value=False)
    for name in ("--help", "--help=all"):
        yield Completion(name, "Main options, or all", takes_value=False)
    for group in dict.fromkeys(option.name.partition(".")[0] for option in options if "." in option.name):
        yield Completion(f"--help.{group}", f"Options of {group}", takes_value=False)


def _values(option: Option) -> tuple[str, ...]:
    """List the values that the type of an option names."""
    if known := VALUES.get(option.name):
        return known
    listed = [
        value.strip(" '") for values in re.findall(r"Literal\[(.*?)\]", option.type) for value in values.split(",")
    ]
    booleans = ["true", "false"] if re.search(r"\bbool\b", option.type) and "dict[" not in option.type else []
    return tuple(dict.fromkeys([*booleans, *listed]))


def _first_clause(text: str) -> str:
    return re.split(r"[;.](?: |$)", " ".join(text.split()))[0]
