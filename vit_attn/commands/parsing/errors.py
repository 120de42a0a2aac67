"""One-line errors from the messages of jsonargparse, which run over many lines and name Python types."""

import os
import re
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from vit_attn.checkpoints.paths import SUFFIXES, looks_like_path, weights_file
from vit_attn.commands.parsing.hints import option_hint
from vit_attn.commands.parsing.renamed import find_renamed_class, new_setting_name
from vit_attn.commands.parsing.unions import in_words, union_sentence
from vit_attn.errors import UserError, did_you_mean, path_hint
from vit_attn.parts import imported_parts

NOT_TEXT = "a configuration file is not text: {}"


class CommandParser(ArgumentParser):
    """Parser of argparse whose errors are one line instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise the error for ``main`` to print.

        Raises:
            UserError: Always.
        """
        if message.endswith(" required: --model"):
            message = self._model_given_otherwise() or message
        raise UserError(summarize_error(message, self))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and remember the arguments for an error about one that is missing."""
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _model_given_otherwise(self) -> str:
        """Describe the first argument that may be meant as ``--model`` as one that is not recognised, or return ''."""
        options = set(_options(self))
        for arg in self.given:
            name = arg.partition("=")[0]
            unknown_option = name.startswith("-") and name not in options
            may_hold_weights = name.endswith(SUFFIXES) or os.path.isdir(name)  # an argument may also be a picture
            if unknown_option or (may_hold_weights and weights_file(name)):
                return f"unrecognized arguments: {name}"
        return ""


def summarize_error(message: str, parser: ArgumentParser | None = None) -> str:
    r"""Summarise a parser's message in one line: the option, what it accepts, and what was given.

    Args:
        message: Message of argparse or jsonargparse.
        parser: Parser of the message, whose options are suggested for an unknown name.

    >>> summarize_error('Parser key "model.lr":\n  Expected a <class \'float\'>. Got value: abc')
    "model.lr: expected a number, got 'abc'"
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
        error = union_sentence(error)
    if unknown := re.search(r"Option '([^']+)' is not accepted", error):
        return _unknown_option(f"--{key[1]}.{unknown[1]}" if key else unknown[1], parser)
    if of_class := re.match(r"Problem with given class_path '(?:\w+\.)*(\w+)': (.*)", error, re.DOTALL):
        return _class_error(key[1] if key else "", of_class[1], of_class[2])
    if not_a_file := re.match(r"\s*Unable to load config '([^']*)'", error):
        return _not_settings(key[1] if key else "", not_a_file[1])
    return key_prefix + (_not_a_config(error) or _simplify(error))


def _not_a_config(error: str) -> str:
    """Describe a file of ``-c`` that is not there or holds no settings, or return '' for another error."""
    if missing := re.match(r"\s*File does not exist: '([^']+)'", error):
        path = os.path.relpath(missing[1])
        return f"there is no file {path}{path_hint(path)}"
    if "Unexpected config: " in error:
        return "the file holds no settings, which are lines such as 'model:' and, below it, '  lr: 1e-3'"
    return ""


def _unknown_option(option: str, parser: ArgumentParser | None) -> str:
    name = option.partition("=")[0]
    if not name.startswith("-"):
        return f"unexpected argument {name!r}{_meant_by_position(name)}"
    if new := new_setting_name(name.removeprefix("--")):
        return f"unknown option {name}, did you mean '--{new}'?"
    return f"unknown option {name}{option_hint(name, _options(parser) if parser else ())}"


def _meant_by_position(name: str) -> str:
    if name.endswith("ml"):
        return "; name configuration files with -c"
    return f"; name the network with --model {name}" if looks_like_path(name) or weights_file(name) else ""


def _options(parser: ArgumentParser) -> Iterator[str]:
    """List the options of a parser and its subcommands."""
    for action in parser._actions:
        if action.help != SUPPRESS:
            yield from (name for name in action.option_strings if not name.startswith(getattr(parser, "unnamed", ())))
        for subparser in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _options(subparser)


def _class_error(key: str, name: str, error: str) -> str:
    """Describe an error of the settings of a class, such as a callback, by the option that mends it."""
    if missing := re.match(r"the following arguments are required: (.*)", error):
        needed = [each.strip() for each in missing[1].split(",")]
        options = " ".join(f"--{key}.{each}=…" for each in needed)
        return f"{key}: {name} needs {' and '.join(needed)}: add {options}"
    if package := re.match(r"Requirement '([^']*)' not met", error):
        return f"{key + ': ' if key else ''}{name} needs a package that is not installed: pip install '{package[1]}'"
    if inner := re.match(r'Parser key "([^"]+)":(.*)', error, re.DOTALL):
        return f"{key}.{inner[1]}: {_simplify(inner[2])}"
    return f"{key + ': ' if key else ''}{_simplify(error)}"


def _not_settings(group: str, value: str) -> str:
    """Describe a value that was given to a group of options, which takes a file of settings."""
    meant = {
        "model": f"the network is --model.arch={value}, its initial weights --model.weights",
        "data": f"a data set is --data.dataset={value}, a folder of images --data.dataset=folder --data.root={value}",
        "checkpoint": f"a checkpoint to start from is --model.weights={value}, a run to go on with --resume RUN",
    }.get(group, f"single settings are --{group}.NAME=VALUE")
    own = [name for name in imported_parts() if hasattr(sys.modules[name], value)] if group == "data" else []
    if own:
        return f"data: {value} is of the module {own[0]}: --data={own[0]}.{value}"
    return f"{group}: there is no file of settings {value!r}; {meant}"


def _no_such_class(name: str) -> str:
    import lightning.pytorch as pl  # already imported wherever classes are named; too slow for other commands

    modules = (pl.callbacks, pl.loggers, pl.profilers, pl.plugins, pl.strategies)
    hint = did_you_mean(name, {each for module in modules for each in module.__all__})
    return f"Lightning has no {name}{hint}; one of your own needs its module, as in package.module.{name}"


def _module_hint(name: str) -> str:
    """Suggest the option by which a module in the current folder is found, or a module there of a like name."""
    if Path(f"{name}.py").is_file() or Path(name).is_dir():
        return f"; it is in the current folder: add --import {name}"
    return did_you_mean(name, [path.stem for path in Path().glob("*.py")])


def _simplify(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"Expected a dot import path string: (\w+)", lambda m: _no_such_class(m[1]), text)
    text = re.sub(r"Problem with given class_path '[\w.]+': ", "", text)
    text = re.sub(r"No module named '(\w+)'$", lambda m: m[0] + _module_hint(m[1]), text)
    expected = r"Expected an? (?:typing\.Literal\[(.*?)\]|([^\s;,.]+))(?=[.;,]|$)"
    text = re.sub(expected, lambda m: f"expected {m[1] or in_words(m[2])}", text)
    return re.sub(r"\. Got value: (.*)", lambda m: f", got {m[1]!r}", text)
