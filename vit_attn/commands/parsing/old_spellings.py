"""Options under names that they had before: they mean the same, and one line says what they are called now."""

import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from vit_attn.console import CONSOLE


def note_old_spelling(old: str, new: str) -> None:
    """Print what an option is called now."""
    CONSOLE.say(f"vit-attn: {old} is called {new} now", sys.stderr)


class OldSpelling(Action):
    """Action of an option under an old name, which stores its value under the new one.

    Args:
        new: The option's name now, with its dashes.
    """

    def __init__(self, option_strings: list[str], dest: str, new: str, **options: Any) -> None:
        self.new = new
        super().__init__(option_strings, dest, default=SUPPRESS, help=SUPPRESS, **options)

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Store the value, and print the new name."""
        note_old_spelling(option_string or "", self.new)
        setattr(namespace, self.dest, values)


def add_old_spelling(parser: ArgumentParser, old: str, new: str, type: Callable[[str], Any] = str) -> None:
    """Add an option under a name that it had before, which ``--help`` does not show.

    Args:
        parser: Parser that has the option under its new name.
        old: The name before, with its dashes.
        new: The name now, with its dashes.
        type: Type of its value.
    """
    parser.add_argument(old, action=OldSpelling, dest=new.removeprefix("--"), new=new, type=type)
