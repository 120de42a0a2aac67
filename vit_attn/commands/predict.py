"""Predict the classes of images, or of a run's test images."""

import sys
from pathlib import Path

from vit_attn.checkpoints.paths import is_run, looks_like_path
from vit_attn.commands.options import add_fit_option, add_images, add_network_options, given_images, require_images
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter
from vit_attn.commands.start import start_lightning
from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, one_line, printable

DESCRIPTION = """\
Predict the classes of images: of your own, by any network in timm's registry or a checkpoint of yours,

  vit-attn predict FOLDER cat.jpg --model runs/NAME/RUN

or of the test images of a run's data set, with the options of `vit-attn test`,

  vit-attn predict --model runs/NAME/RUN

The table has one row per image: `image`, its path, or its number among the test images, from 1; `label`, the true
class, of test images only; `class_1`, `probability_1` and so on, the most probable classes first; and `error`, why a
file cannot be read or has no prediction. JSON is a list of objects with these names. In CSV, names that a spreadsheet
would execute, such as =1+2.png, begin with an apostrophe; JSON and Parquet keep them unchanged.
"""
EPILOG = """\
The exit code is 0 if all images were read and predicted, 1 if some were not, and 2 if none were or if there is a
mistake in the command.
"""
OF_A_RUN = ("--ckpt_path", "-c", "--config", "--print_config", "--data.", "--trainer.", "--seed_everything", "--help.")
"""Beginnings of options for a run's test images, which Lightning's commands have."""


def make_parser() -> CommandParser:
    """Parser of the options of ``predict`` for image files."""
    parser = CommandParser(
        prog="vit-attn predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=ParagraphHelpFormatter,
        allow_abbrev=False,
    )
    add_images(parser)
    add_network_options(parser)
    add_fit_option(parser)
    _add_output(parser, Path("predictions.csv"), "file to write: .csv, .json or .parquet (default: predictions.csv)")
    parser.add_argument("--batch_size", type=int, default=32, help="images in a batch (default: 32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    return parser


def _add_output(parser: CommandParser, default: Path | None, description: str) -> None:
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help=description)
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    parser.add_argument("--top_k", type=int, help="classes per image (default: 5, or all of fewer)")


def run(command: str, options: list[str]) -> int:
    """Predict images.

    Args:
        command: ``predict``.
        options: Command line after the command.

    Returns:
        0, or 1 if some images were not read or predicted; the others are in the table.

    Raises:
        UserError: For a mistake in the options, or if no image was read and predicted.
    """
    if any(option.startswith(OF_A_RUN) for option in options):
        return _predict_run(command, options)
    args = make_parser().parse_args(options)
    if not given_images(args) and (is_run(args.model) or looks_like_path(args.model)):
        return _predict_run(command, options)
    images = require_images(command, args)
    for name, value in (("batch_size", args.batch_size), ("top_k", args.top_k)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    from vit_attn.inference.images import ImageReader, check_fit, find_images, report_input
    from vit_attn.inference.network import network_for_fit, open_network, pick_device
    from vit_attn.inference.predict import predict_files
    from vit_attn.reports.prediction_table import PredictionTable, check_output, check_top_k
    from vit_attn.reports.progress_report import ProgressReport

    check_fit(args.fit)
    check_output(args.output, args.overwrite)
    files = find_images(images)
    network, device = open_network(args.model, args.weights, args.img_size), pick_device(args.device)
    report_input(network, args.model, files)
    network = network_for_fit(network, args.fit)
    network.net.to(device)
    reader, top_k, errors = ImageReader(network, args.fit), check_top_k(args.top_k, network.num_classes), []
    progress = ProgressReport("predicted images:", len(files))
    with PredictionTable(args.output, top_k) as table:
        for rows in predict_files(network, reader, files, args.batch_size, top_k):
            table.write(rows)
            progress.advance_to(table.count)
            for error in [row["error"] for row in rows if "error" in row]:
                CONSOLE.say(f"vit-attn: {one_line(error)}", sys.stderr)
                errors.append(error)
    reader.report_bits()
    reader.report_fit()
    return _report(args.output, len(files), errors)


def _report(output: Path, count: int, errors: list[str]) -> int:
    """Print where the table is and how many images it lacks; the exit code."""
    from vit_attn.reports.prediction_table import NOT_FINITE

    failed = len(errors)
    done = "read and predicted" if any(NOT_FINITE in error for error in errors) else "read"
    if failed == count:
        raise UserError(f"none of the {failed} images could be {done}; {output} says why")
    missing = f"; {failed} of them could not be {done}" if failed else ""
    CONSOLE.say(printable(f"predictions of {count:,} image{'' if count == 1 else 's'}: {output}{missing}"))
    return 1 if failed else 0


def _predict_run(command: str, options: list[str]) -> int:
    """Predict a run's test images through Lightning, into the run's folder unless a file is named."""
    parser = CommandParser(prog="vit-attn predict", add_help=False, allow_abbrev=False)
    _add_output(parser, None, "file to write: .csv, .json or .parquet; by default predictions.csv in the run's folder")
    help_texts = [(action.option_strings[0], (action.help or "").capitalize()) for action in parser._actions]
    own, others = parser.parse_known_args(options)
    if own.top_k is not None and own.top_k < 1:
        raise UserError(f"--top_k must be at least 1, got {own.top_k}")
    try:
        settings = {"path": own.output, "top_k": own.top_k, "overwrite": own.overwrite}
        return start_lightning(command, others, settings, help_texts)
    except UserError as error:
        if str(error).startswith("unexpected argument"):
            raise UserError(f"{error}; images of your own take no options of a run's data or trainer") from error
        raise
