"""Explore networks live in a browser, with your own pictures."""

import sys

from vit_attn.commands.options import MODEL_HELP, add_fit_option, add_images, given_images
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter
from vit_attn.errors import one_line

DEFAULT = "vit_attn_cifar10_patch4_32"
DESCRIPTION = f"""\
Open a page in the browser where a network answers live: drop a picture or name some here, choose class, method, layer,
head and query token, cut what you see and watch the prediction change. Two networks are compared on the same picture:

  vit-attn explore cat.jpg --model runs/NAME/RUN --model vit_tiny_patch16_224

The default network, {DEFAULT}, is tiny, comes with the package and classifies the ten classes of CIFAR-10. The page is
served to this machine alone, at 127.0.0.1; pictures stay on it.
"""


def make_parser() -> CommandParser:
    """Parser of the options of ``explore``."""
    parser = CommandParser(
        prog="vit-attn explore", description=DESCRIPTION, formatter_class=ParagraphHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add_images(parser)
    add("--model", action="append", help=f"{MODEL_HELP}; may be given twice or more (default: {DEFAULT})")
    add("--weights", help="file or address of weights for one --model; 'none' for random ones")
    add("--img_size", type=int, help="other side of the images in pixels, for one --model by name")
    add_fit_option(parser)
    add("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    add("--port", type=int, help="port of the page (default: a free one from 8765 on)")
    add("--no-browser", action="store_true", help="print the page's address without opening it")
    return parser


def run(command: str, options: list[str]) -> int:
    """Serve the page until Ctrl-C.

    Args:
        command: ``explore``.
        options: Command line after the command.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, or if a network is no vision transformer.
    """
    args = make_parser().parse_args(options)
    # importing torch takes seconds, which --help need not wait for
    from vit_attn.explore.networks import open_networks
    from vit_attn.explore.pictures import Pictures
    from vit_attn.explore.server import listen, serve
    from vit_attn.explore.session import Session
    from vit_attn.inference.images import check_fit, find_images, without_repeats
    from vit_attn.inference.network import pick_device

    check_fit(args.fit)
    images = given_images(args)
    files = without_repeats(find_images(images)) if images else []
    with listen(args.port) as opened:
        device = pick_device(args.device)
        networks = open_networks(args.model or [DEFAULT], args.weights, args.img_size, device, args.fit)
        session = Session(networks, Pictures({live.name: live.network for live in networks}, files, args.fit))
        for live in networks:
            sys.stdout.write(one_line(f"{live.name}: {live.network.num_classes:,} classes") + "\n")
        serve(session, opened, not args.no_browser)
    return 0
