"""Write a network for timm (.safetensors), ONNX (.onnx) or torch (.pt2)."""

import argparse
import sys
from pathlib import Path

from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.errors import UserError, did_you_mean

DESCRIPTION = """\
Write a network for use elsewhere. The ending of the file says what is written:

  .safetensors  its weights, under the names that timm's network of that architecture has
  .onnx         a program for ONNX runtimes, one file up to 2 GB (needs: pip install 'vit_attn[export]')
  .pt2          a program of torch.export, which torch.export.load reads without this package

The file also says what network it is, its class names, and mean, std, image size and crop of its images: in the header
of .safetensors, in the metadata of .onnx, and in the extra file vit_attn.json of .pt2. Programs take a batch of any
size, named images (B, C, height, width), and give logits (B, classes); softmax makes them probabilities. What was
written is read again and compared with the network before it takes its name.
"""
FORMS = (".safetensors", ".onnx", ".pt2")


def make_parser() -> CommandParser:
    """The options of ``export``."""
    parser = CommandParser(
        prog="vit-attn export",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_network_options(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help=f"file to write: {', '.join(FORMS)}")
    parser.add_argument(
        "--with_normalize",
        nargs="?",
        const="unit",
        choices=["unit", "uint8"],
        help="put the normalisation into the program, which then takes pixels as floats in [0, 1] (unit, what the "
        "option alone means) or as uint8 in 0..255; without it the program takes (pixels - mean) / std",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="largest difference of a logit, in shares of the largest logit, or absolute below 1 (default: 0.001)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def run(command: str, options: list[str]) -> int:
    """Run the verb.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, or if what was written does not give the network's results.
    """
    args = make_parser().parse_args(options)
    form = args.to.suffix.lower()
    if form not in FORMS:
        hint = did_you_mean(form, FORMS)
        raise UserError(f"--to must end in one of {', '.join(FORMS)}, got {str(args.to)!r}{hint}")
    if args.with_normalize and form == ".safetensors":
        raise UserError("weights have no program that could normalise: leave out --with_normalize, or write .onnx")
    if not args.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {args.tolerance}")
    from vit_attn.inference import export as exporting  # torch takes seconds, which --help need not wait for
    from vit_attn.inference import network as networks  # torch takes seconds, which --help need not wait for
    from vit_attn.reports.prediction_table import refuse_existing

    refuse_existing(args.to, args.overwrite)
    if form == ".onnx":
        exporting.require_onnx()
    network = networks.open_network(args.model, args.weights, args.img_size)
    sys.stdout.write(exporting.export(network, args.to, args.with_normalize, args.tolerance))
    return 0
