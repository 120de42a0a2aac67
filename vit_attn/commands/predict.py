"""Predict the classes of images, or of a run's test images, as a table."""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_attn.commands.found import say_what_is_read
from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.errors import UserError, one_line, printable

if TYPE_CHECKING:
    import torch

    from vit_attn.inference.network import Network

DESCRIPTION = """\
Name the classes of images: of your own, by any network of timm's registry or a checkpoint of yours,

  vit-attn predict PICTURES/ cat.jpg --model runs/NAME/RUN/checkpoints/best.ckpt --output predictions.csv

or of the test images of a run's data set, with the options of `vit-attn test`,

  vit-attn predict --ckpt_path runs/NAME/RUN/checkpoints/best.ckpt

The table has a row an image: `image`, its path, or its number in the test images, from 1; `label`, the true class, of
test images only; `class_1`, `probability_1` and so on, the likeliest classes from the best on; and `error`, what is
wrong with a file that cannot be read or with what the network gives for it. JSON is a list of objects with these
names. In CSV, names that a spreadsheet would execute, such as =1+2.png, have an apostrophe before them; JSON and
Parquet have them as they are.
"""
EPILOG = """\
The exit code is 0 if all images could be read and named, 1 if some could not, and 2 if none could or the command was
wrong.
"""
OF_A_RUN = {"--ckpt_path", "-c", "--config", "--print_config"}
WORKERS = 4
"""Threads that read images; decoding leaves Python's lock free."""


def make_parser() -> CommandParser:
    """The options of ``predict`` for files."""
    parser = CommandParser(
        prog="vit-attn predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders, read with all within them")
    add_network_options(parser)
    _add_output(parser, Path("predictions.csv"), "file to write: .csv, .json or .parquet (default: predictions.csv)")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    return parser


def _add_output(parser: CommandParser, default: Path | None, what: str) -> None:
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    parser.add_argument("--top_k", type=int, help="classes to name (default: 5, or all of fewer)")


def run(command: str, options: list[str]) -> int:
    """Run the verb.

    Args:
        command: ``predict``.
        options: Arguments after the command.

    Returns:
        0, or 1 if some image could not be read, or named; the others are in the table.

    Raises:
        UserError: For a mistake in the options, or if no image could be read and named.
    """
    if OF_A_RUN & {option.partition("=")[0] for option in options}:
        return _of_run(command, options)
    args = make_parser().parse_args(options)
    for name, value in (("batch_size", args.batch_size), ("top_k", args.top_k)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    from vit_attn.inference import (
        network as networks,
    )  # torch takes seconds to import: only when there is something to do
    from vit_attn.reports.prediction_table import NOT_FINITE, PredictionTable, check_output, check_top_k

    check_output(args.output, args.overwrite)
    files = networks.image_files(args.images)
    network, device = networks.open_network(args.model, args.weights, args.img_size), networks.pick_device(args.device)
    say_what_is_read(files, network, args.model)
    network.net.to(device)
    top_k, errors = check_top_k(args.top_k, network.num_classes), []
    with PredictionTable(args.output, top_k) as table:
        for batch in read_ahead(files, network, args.batch_size):
            rows = _rows(batch, network, device, top_k)
            table.write(rows)
            for error in [row["error"] for row in rows if "error" in row]:
                sys.stderr.write(f"vit-attn: {one_line(error)}\n")
                errors.append(error)
    if said := network.say_depths():
        sys.stdout.write(f"{said}\n")
    failed = len(errors)
    done = "read and named" if any(NOT_FINITE in error for error in errors) else "read"
    if failed == len(files):
        raise UserError(f"none of the {failed} images could be {done}; {args.output} says why")
    apart = f"; {failed} of them could not be {done}" if failed else ""
    sys.stdout.write(printable(f"predictions of {len(files):,} images: {args.output}{apart}") + "\n")
    return 1 if failed else 0


def _of_run(command: str, options: list[str]) -> int:
    """Predict a run's test images through Lightning, into a file beside the run unless one is named."""
    parser = CommandParser(prog="vit-attn predict", add_help=False, allow_abbrev=False)
    _add_output(parser, None, "")
    own, others = parser.parse_known_args(options)
    if own.top_k is not None and own.top_k < 1:
        raise UserError(f"--top_k must be at least 1, got {own.top_k}")
    from vit_attn.commands.lightning import run_lightning

    try:
        return run_lightning(command, others, {"path": own.output, "top_k": own.top_k, "overwrite": own.overwrite})
    except UserError as error:
        if str(error).startswith("unexpected argument"):
            raise UserError(f"{error}; for images of your own name the network by --model, not --ckpt_path") from error
        raise


def read_ahead(files: list[Path], network: "Network", batch_size: int) -> Iterator[list[tuple[Path, Any]]]:
    """Batches of files and their pixels in order, read while the network works; never more than three in memory.

    Args:
        files: Image files.
        network: What says how an image is read.
        batch_size: Files of a batch; of one that cannot be read there is a sentence instead of pixels.
    """
    with ThreadPoolExecutor(WORKERS, "read-images") as readers:
        try:
            coming = iter(files)
            waiting = deque((path, readers.submit(network.read, path)) for path in islice(coming, 2 * batch_size))
            while waiting:
                batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
                pictures = [(path, reading.result()) for path, reading in batch]
                waiting.extend((path, readers.submit(network.read, path)) for path in islice(coming, len(batch)))
                yield pictures
        finally:
            readers.shutdown(cancel_futures=True)


def _rows(
    batch: list[tuple[Path, Any]], network: "Network", device: "torch.device", top_k: int
) -> list[dict[str, Any]]:
    """A row of the table for each file of a batch."""
    import torch

    from vit_attn.reports.prediction_table import NOT_FINITE, prediction_rows

    pictures = [picture for _, picture in batch if not isinstance(picture, str)]
    named: list[dict[str, Any]] = []
    if pictures:
        with torch.inference_mode():
            probabilities = network.net(network.normalised(pictures, device)).float().softmax(dim=-1)
        named = prediction_rows(probabilities, top_k, network.unique_name_of)
    following, rows = iter(named), []
    for path, picture in batch:
        row = {"error": picture} if isinstance(picture, str) else next(following)
        if row.get("error") == NOT_FINITE:
            row["error"] = f"{path}: {NOT_FINITE}"
        rows.append({"image": str(path)} | row)
    return rows
