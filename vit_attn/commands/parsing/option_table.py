"""Table of the options of Lightning's commands, whose own parser takes seconds to make.

``scripts/option_table.py`` writes it from that parser.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

PATH = Path(__file__).with_name("options.json")
LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
ANY = "Any"
"""Type of an option whose values only the whole parser can check, such as callbacks."""
LIGHTNINGS_GROUPS = ("trainer", "checkpoint")
"""Groups whose options Lightning defines, or some of them: another version may have others."""
TYPES = {"Any": Any, "Literal": Literal, "Path": Path, "timedelta": timedelta}
"""Types that are no builtins, by their names in the table."""


@dataclass(frozen=True)
class Option:
    """Option of a command.

    Args:
        name: Name with its groups, such as ``data.batch_size``.
        type: Type of its values, as Python writes it.
        default: Default, if it is a plain value.
        help: First sentence of the description.
        linked: Setting of which the value follows, for one that cannot be given.
        also: Other options with the same values or about them.
        commands: Commands that have it.
    """

    name: str
    type: str
    default: Any
    help: str
    linked: str | None = None
    also: Sequence[str] = ()
    commands: Sequence[str] = LIGHTNING_COMMANDS

    @property
    def annotation(self) -> Any:
        """Type of its values."""
        return eval(self.type, dict(TYPES))


@cache
def read_table() -> dict[str, Any]:
    """Read the table: ``options``, and the version of ``lightning`` by which it was made."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def options_of(command: str) -> list[Option]:
    """List the options of a command."""
    options = [Option(**option) for option in read_table()["options"]]
    return [option for option in options if command in option.commands]
