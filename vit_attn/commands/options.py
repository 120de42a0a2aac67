"""Options that name a network, the same for every verb that takes one; free of torch, for a quick ``--help``."""

from argparse import ArgumentParser


def add_network_options(parser: ArgumentParser, default: str | None = None) -> None:
    """Add ``--model``, ``--weights`` and ``--img_size``, which ``networks.open_network`` takes.

    Args:
        parser: Where they are added.
        default: The network that is taken if none is named; without it one must be named.
    """
    parser.add_argument(
        "--model",
        default=default,
        required=default is None,
        help="a .ckpt of a run, a .safetensors that `vit-attn export` wrote, or a name of timm's registry",
    )
    parser.add_argument("--weights", help="file or address of weights for --model; 'none' for random ones")
    parser.add_argument("--img_size", type=int, help="other side of the images in pixels, for --model by name")
