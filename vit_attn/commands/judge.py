"""Evaluate how faithful the attention maps of a network are.

This module has the options; ``vit_attn.commands.judging`` has the steps.
"""

from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.commands.parsing.help_text import ParagraphHelpFormatter
from vit_attn.commands.parsing.old_spellings import add_old_spelling

DESCRIPTION = """\
Evaluate how faithful attention maps are: deletion and insertion of patches, knock-out of the top-ranked patches,
comparison with the maps of the network with re-initialised weights, and the pointing game where the data set has ground
truth. On the validation images of a run,

  vit-attn judge --model runs/NAME/RUN

or on your own pictures, which need no labels: the predicted class is judged,

  vit-attn judge --model vit_small_patch16_224 --images FOLDER --minutes 30

Writes methods.csv, comparisons.csv, pairs.csv, knockouts.csv and curves.png; docs/methods.md explains the columns. If
it is stopped, the same command goes on after the last images that were finished.
"""


def make_parser() -> CommandParser:
    """Parser of the options of ``judge``."""
    options = CommandParser(
        prog="vit-attn judge",
        description=DESCRIPTION,
        formatter_class=ParagraphHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--model", metavar="NAME|RUN|FILE", help="network: a name in timm's registry, a run's folder or a checkpoint")
    add("--img_size", type=int, help="other side of the images in pixels, for --model by name and --images")
    add_old_spelling(options, "--ckpt_path", "--model")
    add("--arch", metavar="NAME", help="network of a data set's classes, with --weights: any ViT in timm's registry")
    add("--arch_options", metavar="KEY=VALUE", nargs="+", default=[], help="its options, such as depth=3")
    add(
        "--weights",
        metavar="FILE",
        help="weights of --arch or --model by name: .safetensors, a checkpoint or a file of timm's; 'none' for random "
        "ones",
    )
    add(
        "--images",
        nargs="+",
        action="extend",
        metavar="IMAGE",
        help="image files, or folders with their sub-folders, instead of a data set; a single number is --num_images",
    )
    add("--dataset", metavar="NAME", help="data set; by default the one that the checkpoint's run was trained on")
    add("--root", metavar="FOLDER", help="folder of the data set's files; by default as for fit")
    add("--num_images", type=int, metavar="N", help="number of images, or all of fewer (default: 256)")
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="judge fewer images if --num_images would take longer than about M minutes, as measured before the start",
    )
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add(
        "--output",
        metavar="FOLDER",
        help="folder of the results; by default judge/ in the checkpoint's run, else in the current folder",
    )
    add_old_spelling(options, "--out", "--output")
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
    args = make_parser().parse_args(options)
    from vit_attn.commands.judging import judge  # torch and timm take seconds, which --help need not wait for

    return judge(args)
