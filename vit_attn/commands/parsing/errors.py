"""One-line errors from the messages of jsonargparse, which run over many lines and name Python types."""

import re
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import NoReturn

from vit_attn.commands.parsing.renamed import find_renamed_class, new_setting_name
from vit_attn.errors import UserError, did_you_mean

CLASS_FORMATS = ("Not a valid subclass", "a class path (str)", "a dict with")
"""Beginnings of messages about the formats of a class, which jsonargparse lists beside the real error."""
NOT_TEXT = "a configuration file is not text: {}"


class CommandParser(ArgumentParser):
    """Parser of argparse whose errors are one line instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise the error for ``main`` to print.

        Raises:
            UserError: Always.
        """
        raise UserError(summarize_error(message, self))


def summarize_error(message: str, parser: ArgumentParser | None = None) -> str:
    r"""Summarise a parser's message in one line: the option, what it accepts, and what was given.

    Args:
        message: Message of argparse or jsonargparse.
        parser: Parser of the message, whose options are suggested for an unknown name.

    >>> summarize_error('Parser key "model.lr":\n  Expected a <class \'float\'>. Got value: abc')
    "model.lr: expected float, got 'abc'"
    """
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_option(unknown[1], parser)
    if unknown := re.match(r"Subcommand '\w+' does not accept option '([^']+)'", message):
        return _unknown_option(f"--{unknown[1]}", parser)
    key_prefix, error = "", message
    if key := re.match(r'Parser key "([^"]+)":', message):
        key_prefix, error = f"{key[1]}: ", message[key.end() :]
    if renamed := find_renamed_class(error):
        old, new = renamed
        return f"{key_prefix}there is no class {old}, did you mean {new!r}?"
    if "Union subtypes" in error:
        value = re.search(r"Given value: (\S+)\s*$", error)
        error = "; or ".join(_union_errors(error))
        error += f", got {value[1]!r}" if value and "got" not in error.lower() else ""
    return key_prefix + _simplify(error)


def _unknown_option(option: str, parser: ArgumentParser | None) -> str:
    name = option.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {name!r}" + ("; name configuration files with -c" if name.endswith("ml") else "")
    if new := new_setting_name(name.removeprefix("--")):
        return f"unknown option {name}, did you mean '--{new}'?"
    return f"unknown option {name}{did_you_mean(name, set(_options(parser)) if parser else ())}"


def _options(parser: ArgumentParser) -> Iterator[str]:
    """List the options of a parser and its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        for subparser in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _options(subparser)


def _union_errors(message: str) -> list[str]:
    """List the error of each type of a union but None, which users do not expect to be accepted."""
    errors = message.partition("Errors:")[2].partition("Given value type:")[0]
    parts = [" ".join(part.split()) for part in re.split(r"^\s*- ", errors, flags=re.MULTILINE)]
    relevant = [part for part in parts if part and "NoneType" not in part and not part.startswith(CLASS_FORMATS)]
    return list(dict.fromkeys(relevant)) or [" ".join(message.split())]


def _no_such_class(name: str) -> str:
    import lightning.pytorch as pl  # already imported wherever classes are named; too slow for other commands

    modules = (pl.callbacks, pl.loggers, pl.profilers, pl.plugins, pl.strategies)
    hint = did_you_mean(name, {each for module in modules for each in module.__all__})
    return f"Lightning has no {name}{hint}; one of your own needs its module, as in package.module.{name}"


def _simplify(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"Expected a dot import path string: (\w+)", lambda m: _no_such_class(m[1]), text)
    text = re.sub(r"Problem with given class_path '[\w.]+': ", "", text)
    text = re.sub(
        r"Expected an? (?:typing\.Literal\[(.*?)\]|([^\s;,.]+))(?=[.;,]|$)", lambda m: f"expected {m[1] or m[2]}", text
    )
    return re.sub(r"\. Got value: (.*)", lambda m: f", got {m[1]!r}", text)
