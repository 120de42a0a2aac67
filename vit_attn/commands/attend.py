"""Draw attention maps of a trained network on your own images."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, one_line, printable

if TYPE_CHECKING:
    from vit_attn.inference.attend import MapSettings
    from vit_attn.inference.images import ReadImage
    from vit_attn.inference.network import TrainedNetwork

DEFAULT = "vit_attn_cifar10_patch4_32"
DESCRIPTION = f"""Draw the attention of a network: for each image NAME a figure OUT/NAME.attention.png with the image,
the relevance for a class, the last layer's attention, attention rollout, and the query token's row in every layer and
head; and the numbers in OUT/NAME.attention.npz. The default network, {DEFAULT}, is tiny, comes with the
package and classifies the ten classes of CIFAR-10. --model takes any vision transformer in timm's registry, or a
checkpoint of yours."""


def make_parser() -> CommandParser:
    """Parser of the options of ``attend``."""
    parser = CommandParser(prog="vit-attn attend", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders with their sub-folders")
    add_network_options(parser, DEFAULT)
    parser.add_argument(
        "--query",
        metavar="TOKEN",
        help="query token: a patch as ROW,COLUMN from 1,1, or CLS, R1, …; by default what the network pools. A single "
        "number counts all tokens from 0, as in Python, prefix tokens first",
    )
    parser.add_argument("--target", type=int, help="index of the class of the relevance (default: the predicted one)")
    parser.add_argument("--out", type=Path, default=Path("attention"), help="folder of the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--batch_size", type=int, default=8, help="images in a batch")
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
    if args.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, got {args.batch_size}")
    # importing torch takes seconds, which --help need not wait for
    from vit_attn.inference.attend import MapSettings, result_names
    from vit_attn.inference.images import ImageReader, find_images, read_ahead, report_input, without_repeats
    from vit_attn.inference.network import open_network, pick_device

    files = without_repeats(find_images(args.images))
    network, device = open_network(args.model, args.weights, args.img_size, attends=True), pick_device(args.device)
    report_input(network, args.model, files)
    network.net.to(device)
    args.out.mkdir(parents=True, exist_ok=True)
    reader, names, failed = ImageReader(network.card), result_names(files), 0
    for batch in read_ahead(files, reader, args.batch_size):
        bases = {path: args.out / names[path] for path, _ in batch}
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
        if attention is None:
            errors.append(f"{path}: the network gives NaN or infinity")
            continue
        prediction, picture = save_attention(bases[path], path, image, attention, network)
        CONSOLE.say(printable(f"{path}: {prediction} -> {picture}"))
    return errors
