"""Check of the options of Lightning's commands before torch is imported, which takes seconds.

A parser of jsonargparse with the options of the table reads the command line as Lightning's own does afterwards, with
the same messages. It refuses only what that one would refuse: where it cannot know, it leaves the decision to that one.
"""

import re
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from importlib.metadata import version
from typing import Any, NoReturn

from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentParser

from vit_attn.commands.parsing.errors import NOT_TEXT, summarize_error
from vit_attn.commands.parsing.model_option import check_evaluated
from vit_attn.commands.parsing.option_table import ANY, LIGHTNINGS_GROUPS, Option, options_of, read_table
from vit_attn.commands.parsing.yaml_limits import limit_jsonargparse
from vit_attn.errors import UserError

LEFT_IN_MESSAGE = re.compile(r"\b(class_path|init_args|dict_kwargs)\b|-->")
"""Parts of messages about what only the whole parser knows: classes and linked options."""
REMOTE_FILE = re.compile(r"(-c=?|--\w+=)?\w+://")
"""Address of a configuration file, which only the whole parser reads."""
OF_TRAINING = ("--ckpt_path", "--model.", "--resume", "--name", "--runs", "--data.augment")
"""Beginnings of options that other commands than ``fit`` have, but that do nothing there, or are called otherwise."""
NAME_IN_MESSAGE = re.compile(r"""(?:Parser key "|does not accept option '|arguments: -*|argument -*)([\w.+]+)""")


class Undecided(Exception):
    """A mistake that may be none for Lightning's own parser."""


class LightParser(ArgumentParser):
    """Parser of the options in the table.

    Args:
        undecided: Options whose values it cannot check.
        unnamed: Beginnings of options that no hint names, with their dashes.
    """

    def __init__(self, *args: Any, undecided: Sequence[str] = (), unnamed: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.undecided, self.unnamed = undecided, tuple(unnamed)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error of the whole parser, if it is certain that there is one.

        Raises:
            UserError: If it is certain.
            Undecided: If it is not.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        if self._is_certain(message):
            raise UserError(summarize_error(message, self)) from ex
        raise Undecided(message) from ex

    def _is_certain(self, message: str) -> bool:
        name = found[1].rstrip("+") if (found := NAME_IN_MESSAGE.search(message)) else ""
        if LEFT_IN_MESSAGE.search(message) or any(f"{name}.".startswith(f"{each}.") for each in self.undecided):
            return False
        groups = {option.name.partition(".")[0] for option in options_of("fit") if "." in option.name}
        is_ours = name.partition(".")[0] in groups.difference(LIGHTNINGS_GROUPS)
        return is_ours or read_table()["lightning"] == version("lightning")


def check_options(command: str, args: Sequence[str]) -> None:
    """Check the options of a command and the files that they name.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        args: Arguments after the command.

    Raises:
        UserError: For an unknown option, a value of the wrong type, and a file that is missing or cannot be read.
    """
    names = [arg.partition("=")[0] for arg in args]
    if any(name.endswith(".help") for name in names) or any(map(REMOTE_FILE.match, args)):
        return
    limit_jsonargparse()
    checked = [arg for arg, name in zip(args, names, strict=True) if name != "--print_config"]
    try:
        settings: Any = make_parser(command).parse_args([command, *checked])[command]
    except UnicodeDecodeError as error:
        raise UserError(NOT_TEXT.format(error)) from error
    except Undecided:
        return
    prints_settings = len(checked) < len(args)
    if command != "fit" and not prints_settings:  # a requeued run takes another one
        check_evaluated(command, settings.ckpt_path)


def make_parser(command: str) -> LightParser:
    """Make the parser of a command from the table."""
    options = options_of(command)
    undecided = [option.name for option in options if option.type == ANY or option.linked]
    undecided.append("resume")  # which has its own messages
    known: dict[str, Any] = {"undecided": undecided, "unnamed": () if command == "fit" else OF_TRAINING}
    root, parser = LightParser(allow_abbrev=False, **known), LightParser(**known)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    for option in options:
        if "." not in option.name:
            parser.add_argument(f"--{option.name}", type=option.annotation, default=option.default)
    for group in dict.fromkeys(option.name.partition(".")[0] for option in options if "." in option.name):
        parser.add_class_arguments(_group(group, options), group, sub_configs=True)
    for name in [name for option in options for name in option.also]:
        parser.add_argument(name, default=SUPPRESS)
    for option in options:
        if option.linked:
            of_data = "." in option.linked  # a property of the images, which are read later
            when, convert = ("instantiate", None) if of_data else ("parse", int)
            parser.link_arguments(option.linked, option.name, convert, when)
    root.add_subcommands().add_subcommand(command, parser)
    return root


def _group(name: str, options: Sequence[Option]) -> type:
    """Make a class whose arguments are the options of a group, as those of Lightning's parser are of its classes."""
    arguments: dict[str, tuple[str, Any, Any]] = {}
    for option in options:
        if not option.name.startswith(f"{name}."):
            continue
        argument, inner, _ = option.name.removeprefix(f"{name}.").partition(".")
        if not inner:
            arguments[argument] = argument, option.annotation, field(default=option.default)
        elif argument not in arguments:
            kind = _group(f"{name}.{argument}", options)
            arguments[argument] = argument, kind, field(default_factory=kind)
    made = make_dataclass(name.replace(".", "_"), arguments.values())
    made.__doc__ = None  # a description, which would be parsed
    return made
