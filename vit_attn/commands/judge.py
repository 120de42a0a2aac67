"""Evaluate how faithful the attention maps of a network are.

This module has the options; ``vit_attn.commands.judging`` has the steps.
"""

from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter

DESCRIPTION = """\
Evaluate how faithful attention maps are, on validation images: deletion and insertion of patches, knock-out of the
top-ranked patches, comparison with the maps of the network with re-initialised weights, and the pointing game where the
data set has ground truth. Writes methods.csv, comparisons.csv, knockouts.csv and curves.png; docs/methods.md explains
the columns.
"""


def parser() -> CommandParser:
    """Parser of the options of ``judge``."""
    options = CommandParser(
        prog="vit-attn judge",
        description=DESCRIPTION,
        formatter_class=ParagraphHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--ckpt_path", metavar="FILE", help="checkpoint of a run, which knows its network and data; or use --weights")
    add("--arch", metavar="NAME", help="network without a checkpoint of a run: any ViT in timm's registry")
    add("--arch_options", metavar="KEY=VALUE", nargs="+", default=[], help="its options, such as depth=3")
    add("--weights", metavar="FILE", help="its weights: .safetensors, a checkpoint or a file of timm's")
    add("--dataset", metavar="NAME", help="data set; by default the one that the checkpoint's run was trained on")
    add("--root", metavar="FOLDER", help="folder of the data set's files; by default as for fit")
    add("--images", type=int, default=256, metavar="N", help="number of validation images (default: 256)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add(
        "--out",
        metavar="FOLDER",
        help="folder of the results; by default judge/ in the checkpoint's run, else in the current folder",
    )
    add("--seed", type=int, default=0, help="seed of random maps and re-initialised weights (default: 0)")
    return options


def run(command: str, options: list[str]) -> int:
    """Run the command.

    Args:
        command: ``judge``.
        options: Command line after the command's name.

    Returns:
        The exit code.

    Raises:
        UserError: If the options, the data or the weights are wrong.
    """
    args = parser().parse_args(options)
    from vit_attn.commands.judging import judge  # torch and timm take seconds, which --help need not wait for

    return judge(args)
