"""Draw attention maps of a trained network on your own images."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vit_attn.commands.found import say_what_is_read
from vit_attn.commands.options import add_network_options
from vit_attn.commands.parsing.errors import CommandParser
from vit_attn.errors import UserError, one_line, printable, shortened

if TYPE_CHECKING:
    import numpy as np

    from vit_attn.attention_maps.summary import AttentionSummary
    from vit_attn.inference.network import Network

MOST_BYTES = 200
DEFAULT = "vit_attn_cifar10_patch4_32"
DESCRIPTION = f"""Draw where a network looks: for each image NAME a picture OUT/NAME.attention.png with the image,
relevance for a class, the last layer's attention, attention rollout, and the row of every layer and head; and the
numbers behind it in OUT/NAME.attention.npz. The default network, {DEFAULT}, is tiny, comes with the package and
knows the ten classes of CIFAR-10. Any vision transformer of timm's registry, or a checkpoint of yours, can be named."""


def make_parser() -> CommandParser:
    """The options of ``attend``."""
    parser = CommandParser(prog="vit-attn attend", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders, read with all within them")
    add_network_options(parser, DEFAULT)
    parser.add_argument(
        "--query",
        metavar="TOKEN",
        help="who asks: a patch as ROW,COLUMN from 1,1, or CLS, R1, …; by default what is pooled. A single number is a "
        "token as Python counts them, from 0, prefix tokens first",
    )
    parser.add_argument("--target", type=int, help="class that relevance is of; by default the one that is predicted")
    parser.add_argument("--out", type=Path, default=Path("attention"), help="folder of the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--batch_size", type=int, default=8, help="images at a time")
    return parser


def run(command: str, options: list[str]) -> int:
    """Run the verb.

    Returns:
        0, or 1 if some image could not be read, or drawn; the others are.

    Raises:
        UserError: For a mistake in the options, or if there is nothing to draw.
    """
    args = make_parser().parse_args(options)
    if args.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, got {args.batch_size}")
    from vit_attn.inference import (
        network as networks,
    )  # torch takes seconds to import: only when there is something to do

    files = networks.each_once(networks.image_files(args.images))
    network, device = networks.open_network(args.model, args.weights, args.img_size), networks.pick_device(args.device)
    say_what_is_read(files, network, args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    names, errors = _result_names(files), []
    for start in range(0, len(files), args.batch_size):
        read = [(path, network.read(path)) for path in files[start : start + args.batch_size]]
        whole = [(path, each) for path, each in read if not isinstance(each, str)]
        wrong = [each for _, each in read if isinstance(each, str)]
        views, query = _look_at_each([picture for _, picture in whole], network, device, args) if whole else ([], "")
        for (path, picture), view in zip(whole, views, strict=True):
            if view is not None and math.isfinite(view.probabilities.sum()):
                _write(args.out / names[path], path, picture, view, (network, query))
            else:
                wrong.append(f"{path}: the network gives NaN or infinity")
        for each in wrong:
            sys.stderr.write(f"vit-attn: {one_line(each)}\n")
        errors += wrong
    if said := network.say_depths():
        sys.stdout.write(f"{said}\n")
    if len(errors) == len(files):
        raise UserError("none of the images could be read and drawn")
    return 1 if errors else 0


def _result_names(files: list[Path]) -> dict[Path, str]:
    """A name for each file's results; files of one name in several folders get their number."""
    stems, names = [_fitting(path.stem) for path in files], {}
    for number, (path, stem) in enumerate(zip(files, stems, strict=True)):
        name = stem if stems.count(stem) == 1 else f"{stem}_{number + 1}"
        while name in names.values() or (name != stem and name in stems):
            name += "_"
        names[path] = name
    return names


def _fitting(stem: str) -> str:
    """The beginning of a name that leaves room for ours, of 255 bytes that a file system takes."""
    return os.fsdecode(os.fsencode(stem)[:MOST_BYTES])


def _look_at_each(
    pictures: "list[np.ndarray]", network: "Network", device, args: argparse.Namespace
) -> "tuple[list[AttentionSummary | None], str]":
    """Views of the pictures, None of those whose maps are not finite, and who asks, in words."""
    from vit_attn.attention_maps.precision import NotFinite

    try:
        views, query = _look(pictures, network, device, args)
        return [*views], query
    except NotFinite:
        if len(pictures) == 1:
            return [None], ""
    alone = [_look_at_each([picture], network, device, args) for picture in pictures]
    return [view for views, _ in alone for view in views], max(query for _, query in alone)


def _look(
    pictures: "list[np.ndarray]", network: "Network", device, args: argparse.Namespace
) -> "tuple[list[AttentionSummary], str]":
    """Views of the pictures, and who asks, in words."""
    from vit_attn.attention_maps.recording.token_layout import token_layout
    from vit_attn.attention_maps.recording.tokens import find_token, prefix_names, token_name
    from vit_attn.attention_maps.summary import summarize

    net, images = network.net.to(device), network.normalised(pictures, device)
    if args.query is None:
        return summarize(net, images, None, args.target), "what the network pools"
    layout = token_layout(net, images)
    prefix = prefix_names(net, layout.num_prefix_tokens)
    query = find_token(args.query, layout, prefix)
    return summarize(net, images, query, args.target), token_name(query, layout, prefix)


def _write(base: Path, path: Path, picture: "np.ndarray", view: "AttentionSummary", of: "tuple[Network, str]") -> None:
    """The picture and the numbers, and a line about them."""
    network, query = of
    import numpy as np
    from PIL import Image

    guess = f"{_title(network, view.predicted)} ({view.probabilities[view.predicted]:.0%})"
    drawing, numbers = base.with_name(base.name + ".attention.png"), base.with_name(base.name + ".attention.npz")
    Image.fromarray(draw(picture, view, (guess, _title(network, view.target), query))).save(drawing, optimize=True)
    names = np.array(network.class_names or [f"class {i}" for i in range(len(view.probabilities))])
    np.savez_compressed(numbers, image=picture, class_names=names, path=str(path), **vars(view))
    sys.stdout.write(printable(f"{path}: {guess} -> {drawing}") + "\n")


def _title(network: "Network", index: int) -> str:
    """A class's name, as long as there is space for."""
    return shortened(printable(network.name_of(index)), 80)


def draw(picture: "np.ndarray", view: "AttentionSummary", words: tuple[str, str, str]) -> "np.ndarray":
    """The image and its maps on one scale, and below every layer and head.

    Args:
        picture: Pixels (height, width, channels).
        view: Where the network looks.
        words: What it names, for the title; the class that relevance is of; who asks.
    """
    from vit_attn.attention_maps.recording.token_layout import crop_to_patches
    from vit_attn.plotting.overlay import AttentionMap, Mark, draw_overlays, draw_sheet, patch_fractions, stack

    guess, target, query = words

    def prefix(row):
        return row[..., : view.num_prefix_tokens].sum(axis=-1)

    maps = [AttentionMap("relevance", patch_fractions(view.patches(view.relevance)), note=f"for {target}")]
    rows = {"pool" if view.pool else "last layer": view.last, "rollout": view.rollout}
    maps += [AttentionMap(title, view.patches(row), float(prefix(row))) for title, row in rows.items()]
    patch = view.query - view.num_prefix_tokens
    marks = [Mark("query", patch)] if patch >= 0 else []
    seen = crop_to_patches(picture, view)
    rgb = seen.repeat(3, axis=2) if seen.shape[2] == 1 else seen
    top = draw_overlays(rgb, guess, maps, marks, dpi=150)
    shares = prefix(view.heads) if view.num_prefix_tokens else None
    return stack([top, draw_sheet(view.patches(view.heads), f"{query}, in each layer and head", shares, dpi=150)])
