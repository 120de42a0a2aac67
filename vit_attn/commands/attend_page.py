"""The page that ``attend --output PAGE.html`` writes: what it will take, the page, and what was left out."""

import math
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_attn.console import CONSOLE
from vit_attn.errors import UserError, one_line, printable
from vit_attn.explore.one_file import PageSettings, build_page, estimate_size, logits_of_pictures
from vit_attn.files import whole_file
from vit_attn.inference.given_pictures import Pictures, joined, pictures_of
from vit_attn.inference.images import ImageReader, read_ahead
from vit_attn.inference.network import TrainedNetwork


def write_page(network: TrainedNetwork, files: Sequence[Path], reader: ImageReader, args: Namespace) -> int:
    """Write the page of all images that can be read; the errors of others, and its size, are printed.

    Args:
        network: The network, on its device.
        files: Image files.
        reader: Reader of the network's images.
        args: Options of ``attend``.

    Returns:
        0, or 1 if some images were not read or drawn.

    Raises:
        UserError: If none was, or if the page is larger than it may be.
    """
    if not 0 < args.max_megabytes < math.inf:
        raise UserError(f"max-megabytes must be above 0, got {args.max_megabytes}")
    settings = PageSettings(args.query, args.target, args.compared, args.max_megabytes, "--max-megabytes")
    found = _finite_pictures(network, files, reader, args.batch_size)
    first = next(found, None)
    if first is None:
        raise UserError("none of the images could be read and drawn")
    size = estimate_size(network, first, len(files), settings)
    compared = min(args.compared, len(files))
    of_maps = (
        f"; maps of {compared} are compared with random orders, about {140 * compared:,} forwards" if compared else ""
    )
    images = f"{len(files):,} image{'s' * (len(files) > 1)}"
    CONSOLE.say(printable(f"{args.output}: {images}, about {size:.1f} MB{of_maps}"))
    pictures = joined([first, *found])
    reader.report_bits()
    reader.report_fit()
    page = build_page(network, pictures, settings)
    for name, (best, chance) in zip(pictures.names, page.predictions, strict=True):
        CONSOLE.say(printable(f"{name}: {best} ({chance:.0%})"))
    left_out = f" without {page.left_out}, for which --max-megabytes is too small" if page.left_out else ""
    CONSOLE.say(printable(f"{args.output}: {page.megabytes:.1f} MB{left_out}"))
    with whole_file(args.output, "page") as file:
        file.write(page.html.encode())
    return 1 if len(pictures.names) < len(files) else 0


def _finite_pictures(
    network: TrainedNetwork, files: Sequence[Path], reader: ImageReader, batch_size: int
) -> Iterator[Pictures]:
    """Iterate over batches of pictures for which the network's output is finite; print the errors of the others."""
    times = Counter(path.name for path in files)
    for batch in read_ahead(files, reader, batch_size):
        errors = [image for _, image in batch if isinstance(image, str)]
        read = [(path, image) for path, image in batch if not isinstance(image, str)]
        if read:
            names = [path.name if times[path.name] == 1 else str(path) for path, _ in read]
            pictures = pictures_of(network, [image for _, image in read], names)
            finite = logits_of_pictures(network, pictures).isfinite().all(dim=-1).tolist()
            bad = [path for (path, _), good in zip(read, finite, strict=True) if not good]
            errors += [f"{path}: the network gives NaN or infinity" for path in bad]
            if any(finite):
                yield pictures.select([i for i, good in enumerate(finite) if good])
        for error in errors:
            CONSOLE.say(f"vit-attn: {one_line(error)}", sys.stderr)
