"""The tab's page as one file, of pictures and a network as it is: no run, no server."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.checks import call_network, check_images
from vit_attn.attention_maps.methods.measures import measure
from vit_attn.attention_maps.methods.registry import drawn_methods
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.tokens import find_token, prefix_names
from vit_attn.callbacks.attention_callback import evaluating
from vit_attn.callbacks.attention_logger.scalars import patch_size
from vit_attn.callbacks.attention_logger.snapshot import AttentionSnapshot, SnapshotOptions
from vit_attn.callbacks.attention_logger.tab import tab_images, write_snapshot
from vit_attn.callbacks.attention_logger.targets import other_methods, supported
from vit_attn.errors import UserError
from vit_attn.inference.ask import find_class
from vit_attn.inference.given_pictures import Pictures
from vit_attn.inference.network import TrainedNetwork
from vit_attn.reports.prediction_table import unique_names
from vit_attn.tb_plugin.export import StepSize, export_page, measure_steps, page_size
from vit_attn.tb_plugin.export_plan import MAX_MEGABYTES

BATCH = 8
"""Pictures of a plain forward."""


@dataclass(frozen=True)
class PageSettings:
    """Contents of a page, and its first view.

    Args:
        query: Query token of the first view, as :func:`vit_attn.attention_maps.recording.tokens.find_token` takes it;
            None for what the network pools.
        target: Class of the first view, by index or name; None for the predicted one.
        compared: Pictures whose maps are compared with random orders and centre first, at most; the first ones.
        max_megabytes: Largest size of the page in 1e6 bytes.
        limit_option: Name of the option for that, for messages.
    """

    query: str | None = None
    target: int | str | None = None
    compared: int = 0
    max_megabytes: float = MAX_MEGABYTES
    limit_option: str = "max_megabytes"


@dataclass(frozen=True)
class OnePage:
    """A page.

    Args:
        html: The file.
        left_out: What it does not have, so that it fits; or nothing.
        predictions: Name and probability of the predicted class of each picture.
    """

    html: str
    left_out: str
    predictions: list[tuple[str, float]]

    @property
    def megabytes(self) -> float:
        """Size in 1e6 bytes."""
        return len(self.html.encode()) / 1e6


def logits_of_pictures(network: TrainedNetwork, pictures: Pictures) -> Float[Tensor, "B classes"]:
    """Compute the network's output on pictures, a few at a time.

    Raises:
        UserError: If the network does not take the pictures.
    """
    check_images(network.net, pictures.normalized)
    with evaluating(network.net):
        batches = pictures.normalized.split(BATCH)
        return torch.cat([logits_of(call_network(network.net, batch)) for batch in batches])


def estimate_size(network: TrainedNetwork, first: Pictures, count: int, settings: PageSettings) -> float:
    """Return the megabytes of a page of so many pictures, with queries and keys where these fit, from one of them.

    Raises:
        UserError: If the page would be larger than it may.
    """
    with tempfile.TemporaryDirectory(prefix="vit_attn_") as folder:
        snapshot = _snapshot(network, first.select([0]), None, 0)
        size = _write(Path(folder), network, snapshot, first.select([0]))
    return _fit(StepSize(count * size.images, count * size.queries_keys), settings)[0] / 1e6


def build_page(network: TrainedNetwork, pictures: Pictures, settings: PageSettings) -> OnePage:
    """Record a network on pictures, and build the page with all its maps inside.

    It has the maps of every head, relevance of all tokens, the maps of every method that supports the network, those of
    class-specific ones for three classes, and queries and keys where they fit.

    Args:
        network: The network, on its device.
        pictures: The pictures.
        settings: What the page has.

    Raises:
        UserError: If the network cannot be recorded, if its output is not finite, if it has no such query or class, or
            if the page is larger than it may be.
    """
    logits = logits_of_pictures(network, pictures)
    if wrong := [name for name, row in zip(pictures.names, logits, strict=True) if not row.isfinite().all()]:
        raise UserError(f"{wrong[0]}: the network gives NaN or infinity")
    names = class_names(network, logits.shape[1])
    target = None if settings.target is None else find_class(names, settings.target)
    view = _first_view(network, pictures, settings.query, None if target is None else names[target])
    snapshot = _snapshot(network, pictures, target, settings.compared)
    with tempfile.TemporaryDirectory(prefix="vit_attn_") as folder:
        size = _write(Path(folder), network, snapshot, pictures)
        _, vectors = _fit(size, settings)
        html = export_page(Path(folder), [0], None, vectors, network.card.architecture, view, pictures=True)
    found = [(names[each.predicted], float(each.probabilities[each.predicted])) for each in snapshot.summaries]
    return OnePage(html, "" if vectors else "queries and keys", found)


def class_names(network: TrainedNetwork, count: int) -> list[str]:
    """Names of all classes, with the index where several share one."""
    return unique_names([network.class_name(index) for index in range(count)])


def _snapshot(network: TrainedNetwork, pictures: Pictures, target: int | None, compared: int) -> AttentionSnapshot:
    drawn = tuple(supported(network.net, drawn_methods()))
    options = SnapshotOptions(
        len(pictures.names),
        drawn,
        token_relevance=True,
        comparison=compared > 0,
        tab_methods=other_methods(network.net, drawn),
        targets=True,
        target=target,
        most_compared=compared,
    )
    return AttentionSnapshot.of_images(network.net, pictures.normalized, pictures, options).on_host()


def _write(folder: Path, network: TrainedNetwork, snapshot: AttentionSnapshot, pictures: Pictures) -> StepSize:
    """Write a snapshot as step 0 of a run; returns what it takes in a page."""
    count = len(pictures.names)
    images = tab_images(snapshot, class_names(network, snapshot.logits.shape[1]), count, pictures.names)
    measures = measure(snapshot.recording, patch_size(snapshot.probe.images, snapshot.recording))
    write_snapshot(folder, snapshot, images, measures, vectors=count, note=pictures.note)
    return measure_steps(folder)[0]


def _fit(size: StepSize, settings: PageSettings) -> tuple[int, bool]:
    """Return the bytes of a page that fits, and whether it has queries and keys."""
    everything, limit = range(len(size.images)), 1e6 * settings.max_megabytes
    for vectors in (True, False):
        total = page_size() + size.total(everything, vectors)
        if total <= limit:
            return total, vectors
    some = f"{len(size.images)} pictures" if len(size.images) > 1 else "this picture"
    fewer = ", or take fewer" if len(size.images) > 1 else ""
    raise UserError(
        f"{some} would take {total / 1e6:.1f} MB without queries and keys, more than {settings.max_megabytes:g}: allow "
        f"it by {settings.limit_option}={math.ceil(1.05 * total / 1e6)}{fewer}"
    )


def _first_view(network: TrainedNetwork, pictures: Pictures, query: str | None, target: str | None) -> str:
    """Return the first view as a link to it."""
    parts = {"run": network.card.architecture, "step": "0", "image": "1"}
    if query is not None and target is not None:
        raise UserError("a page has the maps of a chosen class for what the network pools: leave out query or target")
    if query is not None:
        layout = token_layout(network.net, pictures.normalized[:1])
        token = find_token(query, layout, prefix_names(network.net, layout.num_prefix_tokens))
        parts["query"] = str(token)
    if target is not None:
        parts["target"] = target
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())
