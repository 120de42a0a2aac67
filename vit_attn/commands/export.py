"""Write a network for timm, ONNX or torch.export."""

import os
import sys
from pathlib import Path

from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter
from vit_attn.commands.parsing.old_spellings import add_old_spelling
from vit_attn.errors import UserError, did_you_mean

DESCRIPTION = """\
Write a network for use elsewhere. The ending of --output chooses the format:

  FOLDER/       FOLDER/model.safetensors, weights under timm's names, and FOLDER/config.json, by which
                timm.create_model("local-dir:FOLDER", pretrained=True) loads them; networks called vit_attn_*
                need `import vit_attn.model` before
  .safetensors  the same in a file of that name, and config.json in its folder unless there is one
  .onnx         a program for ONNX runtimes, one file up to 2 GB (needs: pip install 'vit_attn[export]')
  .pt2          a program of torch.export, which torch.export.load reads without this package

Each holds the model card: architecture, model_args, label_names, input_size, mean, std, crop_pct, dataset and bits,
in the header of .safetensors, in the metadata of .onnx, and in the extra file vit_attn.json of .pt2. Programs take a
batch of any size, named images (B, C, height, width), and give logits (B, classes); softmax turns them into
probabilities. What was written is read again and compared with the network before it is renamed.
"""
FORMATS = (".safetensors", ".onnx", ".pt2")


def make_parser() -> CommandParser:
    """Parser of the options of ``export``."""
    parser = CommandParser(
        prog="vit-attn export",
        description=DESCRIPTION,
        formatter_class=ParagraphHelpFormatter,
        allow_abbrev=False,
    )
    add_network_options(parser)
    parser.add_argument("--output", metavar="FILE", help=f"FOLDER/, or a file: {', '.join(FORMATS)} (required)")
    add_old_spelling(parser, "--to", "--output")
    parser.add_argument(
        "--with_normalize",
        nargs="?",
        const="unit",
        choices=["unit", "uint8"],
        help="put the normalisation into the program, which then takes pixels as floats in [0, 1] (unit, the default "
        "of this option) or as uint8 in 0..255; without it the program takes (pixels - mean) / std",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="largest difference of a logit, as a fraction of the largest logit, or absolute below 1 (default: 0.001)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(command: str, options: list[str]) -> int:
    """Export a network.

    Args:
        command: ``export``.
        options: Command line after the command.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, or if what was written gives other logits than the network.
    """
    args = make_parser().parse_args(options)
    path, is_folder = _target(args.output)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        hint = did_you_mean(suffix, FORMATS)
        raise UserError(
            f"--output must end in one of {', '.join(FORMATS)}, or in / for a folder, got {args.output!r}{hint}"
        )
    if args.with_normalize and suffix == ".safetensors":
        raise UserError("weights have no program that could normalise: leave out --with_normalize, or write .onnx")
    if not args.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {args.tolerance}")
    from vit_attn.checkpoints.timm_config import CONFIG  # importing torch takes seconds, which --help need not wait for
    from vit_attn.inference.export import ExportSettings, export
    from vit_attn.inference.export_formats import require_onnx
    from vit_attn.inference.network import open_network
    from vit_attn.reports.prediction_table import refuse_existing

    for each in (path, path.with_name(CONFIG)) if is_folder else (path,):
        refuse_existing(each, args.overwrite)
    if suffix == ".onnx":
        require_onnx()
    network = open_network(args.model, args.weights, args.img_size)
    sys.stdout.write(export(network, ExportSettings(path, args.with_normalize, args.tolerance, args.overwrite)))
    return 0


def _target(output: str | None) -> tuple[Path, bool]:
    """Find the file to write, and whether the user named its folder.

    Raises:
        UserError: If the path is empty, or if the folder is a file.
    """
    if output is None or not output.strip():
        raise UserError(f"export needs --output: FOLDER/, or a file that ends in {', '.join(FORMATS)}")
    is_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    if is_folder and Path(output).exists() and not Path(output).is_dir():
        raise UserError(f"{Path(output)} is a file: name another folder")
    return (Path(output, "model.safetensors") if is_folder else Path(output)), is_folder
