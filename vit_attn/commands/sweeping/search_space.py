"""Settings that a sweep searches: the ranges of ``--param``, and the options that a trial takes from them."""

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vit_attn.commands.parsing.hints import option_hint
from vit_attn.commands.parsing.option_table import options_of
from vit_attn.errors import UserError

EXAMPLES = "such as model.lr=log:1e-4..1e-2, model.arch_options.depth=2..6 or model.optimizer=adamw,muon"
OUTSIDE_BRACKETS = re.compile(r",(?![^\[{]*[\]}])")
"""Comma between two choices, which may be lists."""


@runtime_checkable
class Suggestions(Protocol):
    """What proposes values, as a trial of Optuna does."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Propose a number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Propose a whole number."""
        ...

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """Propose one of several texts."""
        ...


@dataclass(frozen=True)
class Parameter:
    """Setting of ``fit`` with the values that a sweep tries.

    Args:
        name: Option of ``fit`` without dashes, such as ``model.lr``.
        choices: Its values as texts, for a choice among them; empty for a range.
        low: Least value of a range.
        high: Greatest value of a range, included.
        log: Whether the logarithm of the value is drawn evenly, rather than the value.
        whole: Whether the values of a range are whole numbers.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """Format as ``--param`` has it.

        >>> str(parse_parameter("model.lr=log:0.0001..1e-2"))
        'model.lr=log:0.0001..0.01'
        """
        if self.choices:
            return f"{self.name}={','.join(self.choices)}"
        low, high = (str(int(end) if self.whole else float(end)) for end in (self.low, self.high))
        return f"{self.name}={'log:' * self.log}{low}..{high}"

    def suggest(self, trial: Suggestions) -> str:
        """Let a trial choose a value, and return it as it is written in an option; numbers have four digits."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=self.log):.4g}"

    def extremes(self) -> tuple[str, ...]:
        """List values to check before the first trial: all choices, or both ends of the range."""
        return self.choices or tuple(str(int(end)) if self.whole else f"{end:.4g}" for end in (self.low, self.high))


def parse_parameter(text: str) -> Parameter:
    """Parse a value of ``--param``.

    >>> parse_parameter("model.arch_options.depth=2..6").extremes()
    ('2', '6')
    >>> parse_parameter("model.optimizer=adamw,muon").choices
    ('adamw', 'muon')

    Args:
        text: ``NAME=LOW..HIGH``, ``NAME=log:LOW..HIGH`` or ``NAME=VALUE,VALUE``. A range of two whole numbers has only
            whole numbers; ``0.0..1.0`` has all between.

    Raises:
        UserError: If it is none of these, if ``fit`` has no such option, or if the range is empty.
    """
    name, _, values = text.removeprefix("--").partition("=")
    if not name or not values:
        raise UserError(f"--param needs a setting and its values, {EXAMPLES}, got {text!r}")
    _check_name(name)
    if ".." in values:
        return _parse_range(name, values)
    if values.startswith("log:"):
        raise UserError(f"--param {name}: log: needs a range, such as log:1e-4..1e-2, got {values!r}")
    choices = tuple(each.strip() for each in OUTSIDE_BRACKETS.split(values))
    if "" in choices or len(set(choices)) < len(choices):
        raise UserError(f"--param {name}: values must be given and differ, got {values!r}")
    if len(choices) == 1:
        raise UserError(f"--param {name}: {values} is a single value: give it as --{name}={values}, or more values")
    return Parameter(name, choices)


def _parse_range(name: str, values: str) -> Parameter:
    log = values.startswith("log:")
    ends = values.removeprefix("log:").split("..")
    try:
        low, high = map(float, ends)
    except ValueError as error:
        raise UserError(f"--param {name}: a range is LOW..HIGH, two numbers, got {values!r}") from error
    if not -float("inf") < low < high < float("inf"):
        raise UserError(f"--param {name}: the first number of a range must be less than the second, got {values!r}")
    if log and low <= 0:
        raise UserError(f"--param {name}: a logarithmic range must begin above 0, got {values!r}")
    whole = all(re.fullmatch(r"[+-]?\d+", end.strip()) for end in ends)
    return Parameter(name, (), low, high, log, whole)


def _check_name(name: str) -> None:
    """Check that ``fit`` has an option; those of a network are not known here."""
    known = [f"--{option.name}" for option in options_of("fit") if not option.linked]
    if f"--{name}" not in known and not name.startswith(("model.arch_options.", "trainer.")):
        raise UserError(f"--param: fit has no setting {name!r}{option_hint(f'--{name}', known).replace('--', '')}")
    if name in ("name", "runs", "resume", "ckpt_path", "config"):
        raise UserError(f"--param: {name} is no setting of the training")
