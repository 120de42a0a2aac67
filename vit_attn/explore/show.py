"""The page of a network and pictures in a notebook's output cell, or as a file."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vit_attn.errors import printable, shortened
from vit_attn.explore.one_file import OnePage, PageSettings, build_page
from vit_attn.files import whole_file
from vit_attn.inference.given_pictures import given_pictures
from vit_attn.inference.images import check_fit
from vit_attn.inference.module_card import Preprocessing, describe_module, with_preprocessing
from vit_attn.inference.network import TrainedNetwork, network_for_fit, open_network
from vit_attn.tb_plugin.export_plan import MAX_MEGABYTES

HEIGHT = 760
"""Height of the page in an output cell, in pixels: heading, picture, map and scale, and the first rows of heads."""


@dataclass(frozen=True)
class AttentionPage:
    """The Attention tab's page of some pictures, which notebooks show in their output cell.

    Args:
        page: The page.
        network: Name of the network.
        names: Name of each picture.
        height: Height in an output cell, in pixels.
    """

    page: OnePage
    network: str
    names: Sequence[str]
    height: int = HEIGHT

    def save(self, path: str | Path) -> Path:
        """Write the page as one HTML file, which any browser opens without a server; returns its path."""
        with whole_file(Path(path), "page") as file:
            file.write(self.page.html.encode())
        return Path(path)

    def _repr_html_(self) -> str:
        """Return a frame that holds the whole page, so that neither its style nor its script meets the notebook's."""
        style = f"width: 100%; height: {int(self.height)}px; border: 1px solid #8884"
        title = html.escape(f"Attention of {self.network}")
        return f'<iframe title="{title}" srcdoc="{html.escape(self.page.html)}" style="{style}"></iframe>'

    def __repr__(self) -> str:
        found = zip(self.names, self.page.predictions, strict=True)
        lines = [f"{shortened(name, 60)}: {shortened(best, 60)} ({chance:.0%})" for name, (best, chance) in found]
        shown = "; ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")
        without = f" without {self.page.left_out}" if self.page.left_out else ""
        size = f"{self.page.megabytes:.1f} MB{without}"
        return printable(f"AttentionPage of {self.network}: {shown}; {size}; .save('page.html') writes it")


def show(  # noqa: PLR0913  a call in a notebook has no configuration file
    net: nn.Module | TrainedNetwork | str | Path,
    image: Any,
    query: str | int | None = None,
    target: str | int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    img_size: Sequence[int] | int | None = None,
    fit: str = "auto",
    compared: int = 0,
    max_megabytes: float = MAX_MEGABYTES,
) -> AttentionPage:
    """Show the attention of a network on pictures: the Attention tab's page, in a notebook's output cell or as a file.

    Args:
        net: Any network that :func:`vit_attn.attention_maps.record` takes and that classifies: of timm, ours,
            torchvision or Hugging Face; what ``open_network`` returned; or a name or path, as ``--model`` of
            ``vit-attn attend``.
        image: A file, a PIL image, pixels as uint8 (height, width, 3), a normalised tensor (3, height, width) or
            (B, 3, height, width), or a list of these. A tensor goes into the network as it is; others are resized,
            cropped and normalised.
        query: Token whose row is shown first: ``"3,5"`` is the patch in row 3 and column 5, counted from 1; ``"CLS"``;
            or an index from 0, prefix tokens first. By default what the network pools.
        target: Class whose relevance is shown first, by name or index. By default the predicted one.
        class_names: Names of the classes by index; by default the network's own, or numbers.
        mean: Mean by channel for pixels in [0, 1]; by default that of timm's configuration of the network.
        std: Standard deviation by channel; by default as ``mean``.
        img_size: Height and width of the images in pixels, or one number; by default the network's own.
        fit: How pictures of another shape are seen, as ``--fit`` of ``vit-attn attend``: ``auto``, ``crop``,
            ``letterbox`` or ``whole``.
        compared: Pictures whose maps are compared with random orders and centre first by deletion and insertion, at
            about 140 forwards each; 0 leaves it out, and the page says so.
        max_megabytes: Largest size of the page in 1e6 bytes; queries and keys are left out where they do not fit.

    Raises:
        UserError: If the network or a picture is none, or if the page is larger than it may be.
    """
    given = Preprocessing(class_names, mean, std, img_size)
    if isinstance(net, TrainedNetwork):
        network = TrainedNetwork(net.net, with_preprocessing(net.card, given))
    else:
        network = _open(net, given) if isinstance(net, str | Path) else describe_module(net, given)
    check_fit(fit)
    network = network_for_fit(network, fit)
    pictures = given_pictures(network, image, fit)
    wanted = None if query is None else str(query)
    page = build_page(network, pictures, PageSettings(wanted, target, compared, max_megabytes))
    return AttentionPage(page, network.card.architecture, pictures.names)


def _open(name: str | Path, given: Preprocessing) -> TrainedNetwork:
    side = given.img_size if isinstance(given.img_size, int) else None
    network = open_network(str(name), None, side)
    return TrainedNetwork(network.net, with_preprocessing(network.card, given))
