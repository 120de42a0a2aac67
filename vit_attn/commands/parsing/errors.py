"""jsonargparse's messages, which run over many lines and name Python types, as one line for a user."""

import re
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import NoReturn

from vit_attn.commands.parsing.renamed import current_option
from vit_attn.errors import UserError, did_you_mean

FORMS_OF_A_CLASS = ("Not a valid subclass", "a class path (str)", "a dict with")
"""What jsonargparse lists beside the real reason why an object cannot be made."""


class OneLineParser(ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake for ``main`` to print."""
        raise UserError(explain(message, self))


def explain(message: str, parser: ArgumentParser | None = None) -> str:
    r"""One line that says which option is wrong and what it takes.

    Args:
        message: What jsonargparse says.
        parser: The parser that said it, whose options are proposed for an unknown name.

    >>> explain('Parser key "model.lr":\n  Expected a <class \'float\'>. Got value: abc')
    "model.lr: expected float, got 'abc'"
    """
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown(unknown[1], parser)
    if unknown := re.match(r"Subcommand '\w+' does not accept option '([^']+)'", message):
        return _unknown(f"--{unknown[1]}", parser)
    where, what = "", message
    if key := re.match(r'Parser key "([^"]+)":', message):
        where, what = f"{key[1]}: ", message[key.end() :]
    if "Union subtypes" in what:
        value = re.search(r"Given value: (\S+)\s*$", what)
        what = "; or ".join(_alternatives(what))
        what += f", got {value[1]!r}" if value and "got" not in what.lower() else ""
    return where + _plain(what)


def _unknown(option: str, parser: ArgumentParser | None) -> str:
    name = option.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {name!r}" + ("; name configuration files with -c" if name.endswith("ml") else "")
    if renamed := current_option(name):
        return f"unknown option {name}, did you mean {renamed!r}?"
    return f"unknown option {name}{did_you_mean(name, set(_options(parser)) if parser else ())}"


def _options(parser: ArgumentParser) -> Iterator[str]:
    """The options of a parser and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        for below in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _options(below)


def _alternatives(message: str) -> list[str]:
    """What each type of a union had against the value; that it was not null goes without saying."""
    errors = message.partition("Errors:")[2].partition("Given value type:")[0]
    each = [" ".join(part.split()) for part in re.split(r"^\s*- ", errors, flags=re.MULTILINE)]
    told = [part for part in each if part and "NoneType" not in part and not part.startswith(FORMS_OF_A_CLASS)]
    return list(dict.fromkeys(told)) or [" ".join(message.split())]


def _no_such_class(name: str) -> str:
    import lightning.pytorch as pl  # at hand wherever classes are named; too slow for other commands

    rooms = (pl.callbacks, pl.loggers, pl.profilers, pl.plugins, pl.strategies)
    hint = did_you_mean(name, {each for room in rooms for each in room.__all__})
    return f"Lightning has no {name}{hint}; one of your own needs its module, as in package.module.{name}"


def _plain(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"Expected a dot import path string: (\w+)", lambda m: _no_such_class(m[1]), text)
    text = re.sub(r"Problem with given class_path '[\w.]+': ", "", text)
    text = re.sub(
        r"Expected an? (?:typing\.Literal\[(.*?)\]|([^\s;,.]+))(?=[.;,]|$)", lambda m: f"expected {m[1] or m[2]}", text
    )
    return re.sub(r"\. Got value: (.*)", lambda m: f", got {m[1]!r}", text)
