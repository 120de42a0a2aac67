"""Write the table of Lightning's options, by which the command line checks options before it imports torch.

To be run when an option of fit, validate, test or predict has changed, or its default or docstring:
    .venv/bin/python scripts/option_table.py
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from unittest import mock

import lightning

from vit_attn.commands import lightning as command_line
from vit_attn.commands.parsing.option_table import ANY, LIGHTNING_COMMANDS, PATH
from vit_attn.commands.run.cli import VitAttnCLI

SIMPLE = {int: "int", float: "float", bool: "bool", str: "str", NoneType: "None", Path: "Path", timedelta: "timedelta"}
"""Types that the table names. Options of other types, such as callbacks, are left to the whole parser."""


class _Made(Exception):
    """Carries the command line out of its constructor, which would run the command next."""


def make_table() -> dict[str, Any]:
    """Make the table from the parsers of the installed Lightning."""
    options: dict[str, dict[str, Any]] = {}
    for command in LIGHTNING_COMMANDS:
        for option in _options(make_command_line(command)._subcommand_parsers[command]):
            known = options.setdefault(option["name"], option | {"commands": []})
            known["commands"].append(command)
    for option in options.values():
        if option["commands"] == list(LIGHTNING_COMMANDS):
            del option["commands"]
    return {"lightning": lightning.__version__, "options": list(options.values())}


def make_command_line(command: str) -> VitAttnCLI:
    """Make the command line of one of Lightning's commands, with its parser, without running the command."""

    def carry(cli: VitAttnCLI, *_: Any) -> None:
        raise _Made(cli)

    with mock.patch.object(VitAttnCLI, "parse_arguments", carry):
        try:
            command_line.run_lightning(command, [], {})
        except _Made as made:
            return made.args[0]
    raise AssertionError("the command line parsed nothing")


def _options(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    """List the options of a parser; those that name a configuration, or ask for help, follow from the others."""
    helped = {action.dest.removesuffix(".help") for action in parser._actions if action.dest.endswith(".help")}
    for action in parser._actions:
        kind = type(action).__name__
        if kind not in ("ActionTypeHint", "ActionLink"):
            continue
        option: dict[str, Any] = {"name": action.dest, "type": type_text(getattr(action, "_typehint", action.type))}
        if kind == "ActionLink":
            option["linked"] = re.sub(r"int\((\w+)\)", r"\1", action.option_strings[0]).partition(" ")[0]
        elif option["type"] == ANY:
            also = [name for name in action.option_strings if name.endswith("+")]
            option["also"] = also + [f"--{action.dest}.help"] * (action.dest in helped)
        plain = isinstance(action.default, bool | int | float | str | NoneType) and kind == "ActionTypeHint"
        yield option | {"default": action.default if plain else None, "help": first_sentence(str(action.help))}


def type_text(annotation: Any) -> str:
    """Write a type as Python; ``Any`` if it has a class that is not a simple one.

    >>> type_text(int | None), type_text(Literal["a", "b"]), type_text(list[argparse.Action])
    ('int | None', "Literal['a', 'b']", 'Any')
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    parts = ["..." if each is ... else type_text(each) for each in args]
    if ANY in parts or not parts:
        return ANY
    if origin in (Union, UnionType):
        return " | ".join(parts)
    return f"{origin.__name__}[{', '.join(parts)}]" if origin in (list, dict, tuple) else ANY


def first_sentence(text: str) -> str:
    """Return the first sentence of an option's description, without markup.

    >>> first_sentence("Rate ``lr``, e.g. 0.1. More (see :class:`x`).")
    'Rate lr, e.g. 0.1.'
    """
    text = " ".join(text.replace("``", "").split())
    return re.split(r"(?<=[a-z0-9)\]`][.;])\s+(?=[A-Z])", text, maxsplit=1)[0]


def main() -> None:
    """Write the table."""
    table = make_table()
    rows = ",\n".join(json.dumps(option, ensure_ascii=False) for option in table["options"])
    text = f'{{"lightning": "{table["lightning"]}", "options": [\n{rows}\n]}}\n'
    PATH.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{PATH}: {len(table['options'])} options\n")


if __name__ == "__main__":
    main()
