"""Write a run's Attention tab as one HTML file."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from vit_attn.checkpoints.paths import CHECKPOINTS_FOLDER, weights_file
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.errors import UserError, path_hint, some_of
from vit_attn.tb_plugin.export import StepSize, export_page, measure_steps, page_size
from vit_attn.tb_plugin.export_plan import MAX_MEGABYTES, ExportPlan, plan_export

DESCRIPTION = """\
Write the Attention tab of a run as one HTML file, which any browser opens without TensorBoard.
"""
EVENT_FILES = "*tfevents*"
MAX_DIGITS = 18
"""Digits of a number: steps have 64 bits."""


def make_parser() -> CommandParser:
    """Parser of the options of ``export-html``."""
    parser = CommandParser(prog="vit-attn export-html", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="folder of the run's event files, a checkpoint in it, or a folder of runs for the newest",
    )
    parser.add_argument("--output", type=Path, help="file to write; RUN/attention.html by default")
    parser.add_argument(
        "--steps",
        help="steps by number, or first, middle, last, all (default: first,middle,last, or as many of these as fit)",
    )
    parser.add_argument(
        "--images", help="numbers of probe images from 1, or all (default: the first ones, as many as fit)"
    )
    parser.add_argument(
        "--max-megabytes",
        type=float,
        default=MAX_MEGABYTES,
        metavar="MB",
        help="largest size of the file in 1e6 bytes (default: %(default)g)",
    )
    return parser


def run(command: str, options: list[str]) -> int:
    """Print the file's path, contents and size, and write it.

    Args:
        command: ``export-html``.
        options: Arguments after the command.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, and for a run without logged attention.
    """
    args = make_parser().parse_args(options)
    args.run = _folder_of_run(args.run)
    if not 0 < args.max_megabytes < math.inf:
        raise UserError(f"max-megabytes must be above 0, got {args.max_megabytes}")
    sizes = measure_steps(args.run)
    steps = None if args.steps is None else _select_steps(args.steps, list(sizes))
    images = None if args.images is None else _select_images(args.images, sizes, steps or list(sizes)[-1:])
    plan = plan_export(sizes, steps, images, page_size(), 1e6 * args.max_megabytes)
    output = args.output or args.run / "attention.html"
    sys.stdout.write(f"{output}: {_describe(plan, sizes)}\n")
    sys.stdout.flush()  # before the file is written
    output.write_text(export_page(args.run, plan.steps, plan.images, plan.queries_keys), encoding="utf-8")
    return 0


def _folder_of_run(path: Path) -> Path:
    """Find the folder of a run's event files, by itself, its checkpoints, or as the newest in a folder of runs.

    Raises:
        UserError: If there is no such path.
    """
    if not path.exists():
        raise UserError(f"no such folder: {path}{path_hint(path)}")
    if path.is_dir() and any(path.glob(EVENT_FILES)):
        return path
    found = weights_file(path)
    return found.parent.parent if found and found.parent.name == CHECKPOINTS_FOLDER else path


def _describe(plan: ExportPlan, sizes: Mapping[int, StepSize]) -> str:
    """Say what the file has, how large it is, what was left out and how to get it."""
    most = max(len(each.images) for each in sizes.values())
    kept = "all images" if plan.images is None else f"images {', '.join(str(image + 1) for image in plan.images)}"
    parts = []
    if left := len(sizes) - len(plan.steps):
        parts.append(f"{left} of {len(sizes)} steps")
    if plan.images is not None and most > len(plan.images):
        parts.append(f"{most - len(plan.images)} of {most} images")
    if not plan.queries_keys and any(any(each.queries_keys) for each in sizes.values()):
        parts.append("queries and keys")
    text = f"steps {', '.join(map(str, plan.steps))}, {kept}, {plan.size / 1e6:.1f} MB"
    if not parts:
        return text
    everything = page_size() + sum(each.total(range(most), True) for each in sizes.values())
    more = f"--steps=all --images=all --max-megabytes={math.ceil(1.02 * everything / 1e6)}"
    return f"{text}\nLeft out: {', '.join(parts)}. For all, {everything / 1e6:.1f} MB: {more}"


def _select_images(text: str, sizes: Mapping[int, StepSize], steps: list[int]) -> list[int] | None:
    if text == "all":
        return list(range(max(len(sizes[step].images) for step in steps)))
    return [_parse_number(each, 1) - 1 for each in text.split(",")]


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
