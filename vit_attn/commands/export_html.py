"""``export-html``: one file with the Attention tab of a run, to send to a colleague."""

import sys
from pathlib import Path

from vit_attn.commands.parsing.errors import OneLineParser
from vit_attn.errors import UserError, some_of
from vit_attn.tb_plugin.export import export_page, find_steps

MOST_DIGITS = 18
"""Digits of a number: steps have 64 bits."""


def run(verb: str, options: list[str]) -> int:
    """Write the file and say where it is and how large.

    Args:
        verb: ``export-html``.
        options: What followed the verb on the command line.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, and for a run without attention.
    """
    parser = OneLineParser(prog=f"vit-attn {verb}", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run's event files")
    parser.add_argument("--output", type=Path, help="file to write; RUN/attention.html by default")
    parser.add_argument(
        "--steps",
        default="first,middle,last",
        help="steps by number, or first, middle, last, all (default: %(default)s)",
    )
    parser.add_argument("--images", default="all", help="numbers of probe images from 1, or all (default: %(default)s)")
    chosen = parser.parse_args(options)
    steps = _steps(chosen.steps, find_steps(chosen.run))
    images = None if chosen.images == "all" else [_number(each, 1) - 1 for each in chosen.images.split(",")]
    output = chosen.output or chosen.run / "attention.html"
    page = export_page(chosen.run, steps, images)
    output.write_text(page, encoding="utf-8")
    sys.stdout.write(f"{output}: steps {', '.join(map(str, steps))}, {len(page.encode()) / 1e6:.1f} MB\n")
    return 0


def _steps(asked: str, logged: list[int]) -> list[int]:
    named = {"first": logged[:1], "middle": [logged[len(logged) // 2]], "last": logged[-1:], "all": logged}
    steps = {step for each in asked.split(",") for step in named.get(each) or [_number(each, 0)]}
    if unknown := sorted(steps - set(logged)):
        raise UserError(f"step {unknown[0]} was not logged; logged are {some_of(logged, 50)}")
    return sorted(steps)


def _number(text: str, least: int) -> int:
    if not (text.isdecimal() and len(text) <= MOST_DIGITS) or int(text) < least:
        raise UserError(f"expected a number from {least}, got {text!r}")
    return int(text)
