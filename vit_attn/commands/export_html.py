"""Write a run's Attention tab as one HTML file."""

import sys
from pathlib import Path

from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.errors import UserError, some_of
from vit_attn.tb_plugin.export import export_page, find_steps

DESCRIPTION = """\
Write the Attention tab of a run as one HTML file, which any browser opens without TensorBoard.
"""
MAX_DIGITS = 18
"""Digits of a number: steps have 64 bits."""


def run(command: str, options: list[str]) -> int:
    """Write the file, and print its path and size.

    Args:
        command: ``export-html``.
        options: Arguments after the command.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, and for a run without logged attention.
    """
    parser = CommandParser(prog=f"vit-attn {command}", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run's event files")
    parser.add_argument("--output", type=Path, help="file to write; RUN/attention.html by default")
    parser.add_argument(
        "--steps",
        default="first,middle,last",
        help="steps by number, or first, middle, last, all (default: %(default)s)",
    )
    parser.add_argument("--images", default="all", help="numbers of probe images from 1, or all (default: %(default)s)")
    args = parser.parse_args(options)
    steps = _select_steps(args.steps, find_steps(args.run))
    images = None if args.images == "all" else [_parse_number(each, 1) - 1 for each in args.images.split(",")]
    output = args.output or args.run / "attention.html"
    page = export_page(args.run, steps, images)
    output.write_text(page, encoding="utf-8")
    sys.stdout.write(f"{output}: steps {', '.join(map(str, steps))}, {len(page.encode()) / 1e6:.1f} MB\n")
    return 0


def _select_steps(text: str, logged: list[int]) -> list[int]:
    groups = {"first": logged[:1], "middle": [logged[len(logged) // 2]], "last": logged[-1:], "all": logged}
    steps = {step for each in text.split(",") for step in groups.get(each) or [_parse_number(each, 0)]}
    if unknown := sorted(steps - set(logged)):
        raise UserError(f"step {unknown[0]} was not logged; logged are {some_of(logged, 50)}")
    return sorted(steps)


def _parse_number(text: str, minimum: int) -> int:
    if not (text.isdecimal() and len(text) <= MAX_DIGITS) or int(text) < minimum:
        raise UserError(f"expected a number from {minimum}, got {text!r}")
    return int(text)
