"""Options that name a network, shared by commands; free of torch, so that ``--help`` is quick."""

from argparse import ArgumentParser, Namespace

from vit_attn.errors import UserError

MODEL_HELP = (
    "the folder of a run, its .ckpt, a .safetensors or folder that `vit-attn export` wrote, or a name in timm's "
    "registry"
)
"""Help of ``--model``, which :func:`vit_attn.inference.network.open_network` takes."""


def add_network_options(parser: ArgumentParser, default: str | None = None) -> None:
    """Add ``--model``, ``--weights`` and ``--img_size``, the arguments of ``vit_attn.inference.network.open_network``.

    Args:
        parser: Parser of the command.
        default: Default of ``--model``; without one it is required.
    """
    parser.add_argument(
        "--model",
        default=default,
        required=default is None,
        help=MODEL_HELP,
    )
    parser.add_argument("--weights", help="file or address of weights for --model; 'none' for random ones")
    parser.add_argument("--img_size", type=int, help="other side of the images in pixels, for --model by name")


def add_images(parser: ArgumentParser) -> None:
    """Add the pictures, as positional arguments or by ``--images``, which :func:`given_images` collects.

    Args:
        parser: Parser of the command.
    """
    text = "image files, or folders with their sub-folders"
    parser.add_argument("pictures", nargs="*", metavar="IMAGE", help=text)
    parser.add_argument("--images", nargs="+", action="extend", default=[], metavar="IMAGE", help=f"the same: {text}")


def given_images(args: Namespace) -> list[str]:
    """List the pictures that were given in either way."""
    return [*args.pictures, *args.images]


def require_images(command: str, args: Namespace) -> list[str]:
    """List the pictures that were given in either way.

    Raises:
        UserError: If there are none.
    """
    if images := given_images(args):
        return images
    raise UserError(f"{command} needs pictures: files or folders, as in vit-attn {command} PHOTO.jpg FOLDER")


def add_fit_option(parser: ArgumentParser) -> None:
    """Add ``--fit``, as ``vit_attn.inference.images.seen_picture`` takes it.

    Args:
        parser: Parser of the command.
    """
    parser.add_argument(
        "--fit",
        metavar="HOW",
        default="auto",
        help="how a picture of any shape is seen: its middle (crop), all of it with padding around (letterbox), or all "
        "of it at its own shape (whole); the default, auto, is whole if the network takes any size, else crop",
    )
