"""Test a network's attention maps for faithfulness, as a table and a figure."""

import argparse

from vit_attn.commands.parsing.errors import CommandParser

DESCRIPTION = """\
Judge attention maps by the network itself, on validation images: deletion and insertion of patches, knock-out of the
patches that a map names, the maps of the same network with random weights and, where the answer is known, pointing.
Writes methods.csv, knockouts.csv and curves.png. docs/methods.md explains each column.
"""


def parser() -> CommandParser:
    """The options of ``judge``."""
    options = CommandParser(
        prog="vit-attn judge",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--ckpt_path", metavar="FILE", help="a checkpoint of ours, which knows its network and data; or see --weights")
    add("--arch", metavar="NAME", help="network, if no checkpoint says so: any ViT of timm's registry")
    add("--arch_options", metavar="KEY=VALUE", nargs="+", default=[], help="its options, such as depth=3")
    add("--weights", metavar="FILE", help="its weights: .safetensors, a checkpoint or a file of timm's")
    add("--dataset", metavar="NAME", help="data set; by default the one that the checkpoint's run was trained on")
    add("--root", metavar="FOLDER", help="folder of the data set's files; by default as for fit")
    add("--images", type=int, default=256, metavar="N", help="validation images to judge on (default: 256)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--out", metavar="FOLDER", help="where to write; by default judge/ beside the checkpoint's run, else here")
    add("--seed", type=int, default=0, help="seed of random patches and random weights (default: 0)")
    return options


def run(command: str, options: list[str]) -> int:
    """Judge a network.

    Args:
        command: ``judge``.
        options: Arguments after the command.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, the data or the weights.
    """
    args = parser().parse_args(options)
    from vit_attn.commands.judging import judge  # torch and timm take seconds, which --help need not wait for

    return judge(args)
