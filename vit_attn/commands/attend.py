"""Draw attention maps of a trained network on your own images."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_attn.commands.options import add_fit_option, add_images, add_network_options, require_images
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.old_spellings import add_old_spelling
from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, one_line, printable
from vit_attn.tb_plugin.export_plan import MAX_MEGABYTES

if TYPE_CHECKING:
    from vit_attn.inference.attend import MapSettings
    from vit_attn.inference.images import ReadImage
    from vit_attn.inference.network import TrainedNetwork

DEFAULT = "vit_attn_cifar10_patch4_32"
PAGE_SUFFIXES = (".html", ".htm")
"""Endings of ``--output`` for the page instead of a folder."""
DESCRIPTION = f"""Draw the attention of a network: for each image NAME a figure NAME.attention.png with the image, the
relevance for a class, the last layer's attention, attention rollout, and the query token's row in every layer and head;
and the numbers in NAME.attention.npz. Or write the page of the Attention tab, with all images in it, as one file that
any browser opens: --output PAGE.html. The default network, {DEFAULT}, is tiny, comes with the
package and classifies the ten classes of CIFAR-10. --model takes any vision transformer in timm's registry, or a
checkpoint of yours."""


def make_parser() -> CommandParser:
    """Parser of the options of ``attend``."""
    parser = CommandParser(prog="vit-attn attend", description=DESCRIPTION, allow_abbrev=False)
    add_images(parser)
    add_network_options(parser, DEFAULT)
    add_fit_option(parser)
    parser.add_argument(
        "--query",
        metavar="TOKEN",
        help="query token: a patch as ROW,COLUMN from 1,1, or CLS, R1, …; by default what the network pools. A single "
        "number counts all tokens from 0, as in Python, prefix tokens first",
    )
    parser.add_argument("--target", help="class of the relevance, by name or index (default: the predicted one)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("attention"),
        help="folder of the figures and numbers (default: %(default)s), or a file PAGE.html for the page",
    )
    add_old_spelling(parser, "--out", "--output", Path)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--batch_size", type=int, default=8, help="images in a batch")
    page = parser.add_argument_group("options of PAGE.html")
    page.add_argument(
        "--compared",
        type=int,
        default=1,
        metavar="IMAGES",
        help="images whose maps are compared with random orders of the patches and with centre first, by deletion and "
        "insertion, at about 140 forwards each; 0 for none (default: %(default)s)",
    )
    page.add_argument(
        "--max-megabytes",
        type=float,
        default=MAX_MEGABYTES,
        metavar="MB",
        help="largest size of the file in 1e6 bytes (default: %(default)g)",
    )
    return parser


def run(command: str, options: list[str]) -> int:
    """Draw attention maps.

    Args:
        command: ``attend``.
        options: Command line after the command.

    Returns:
        0, or 1 if some images were not read or drawn; the others are.

    Raises:
        UserError: For a mistake in the options, or if no image was drawn.
    """
    args = make_parser().parse_args(options)
    images = require_images(command, args)
    for name, least in (("batch_size", 1), ("compared", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    # importing torch takes seconds, which --help need not wait for
    from vit_attn.inference.ask import class_by_name_or_index
    from vit_attn.inference.attend import MapSettings, result_names
    from vit_attn.inference.images import (
        ImageReader,
        check_fit,
        find_images,
        read_ahead,
        report_input,
        without_repeats,
    )
    from vit_attn.inference.network import network_for_fit, open_network, pick_device

    check_fit(args.fit)
    files = without_repeats(find_images(images))
    network, device = open_network(args.model, args.weights, args.img_size, attends=True), pick_device(args.device)
    report_input(network, args.model, files)
    args.target = None if args.target is None else class_by_name_or_index(network, args.target)
    network = network_for_fit(network, args.fit)
    network.net.to(device)
    reader = ImageReader(network, args.fit)
    if args.output.suffix.lower() in PAGE_SUFFIXES:
        from vit_attn.commands.attend_page import write_page

        return write_page(network, files, reader, args)
    args.output.mkdir(parents=True, exist_ok=True)
    names, failed = result_names(files), 0
    for batch in read_ahead(files, reader, args.batch_size):
        bases = {path: args.output / names[path] for path, _ in batch}
        errors = _draw(batch, bases, network, MapSettings(args.query, args.target))
        for error in errors:
            CONSOLE.say(f"vit-attn: {one_line(error)}", sys.stderr)
        failed += len(errors)
    reader.report_bits()
    if failed == len(files):
        raise UserError("none of the images could be read and drawn")
    return 1 if failed else 0


def _draw(
    batch: "Sequence[ReadImage]", bases: Mapping[Path, Path], network: "TrainedNetwork", settings: "MapSettings"
) -> list[str]:
    """Save the attention of each image of a batch, and print a line for it; the errors of the others."""
    from vit_attn.inference.attend import attend, save_attention

    errors = [image for _, image in batch if isinstance(image, str)]
    images = [(path, image) for path, image in batch if not isinstance(image, str)]
    attentions = attend([image for _, image in images], network, settings)
    for (path, image), attention in zip(images, attentions, strict=True):
        if isinstance(attention, str):
            errors.append(f"{path}: {attention}")
            continue
        if image.is_reshaped:
            CONSOLE.say(printable(f"{path}: {image.note}"))
        prediction, picture = save_attention(bases[path], path, image, attention, network)
        CONSOLE.say(printable(f"{path}: {prediction} -> {picture}"))
    return errors
