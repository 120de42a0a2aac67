"""Looks of a network at a picture: its recorded attention and logits, and their bytes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.checks import call_network, check_images, check_logits
from vit_attn.attention_maps.recording.recording import Forward, Recording
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.summary import record_logits
from vit_attn.tb_plugin.summary import EncodedStep


@dataclass
class Look:
    """Attention of a network on one picture.

    Args:
        images: The picture, normalised, as a batch of one.
        recording: Its attention; with the graph for gradients while no other picture has taken its place.
        logits: The network's output.
        encoded: What the page gets of it, once it was asked for.
    """

    images: Float[Tensor, "1 C height width"]
    recording: Recording
    logits: Float[Tensor, "1 classes"]
    encoded: EncodedStep | None = None

    @property
    def predicted(self) -> int:
        """Index of the predicted class."""
        return int(self.logits.argmax())

    @property
    def size(self) -> int:
        """Bytes that it holds, without its graph."""
        tensors = [self.images, *_tensors(self.recording)]
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
        blobs = [] if self.encoded is None else [*self.encoded.images, *self.encoded.queries_keys]
        return sum(storages.values()) + sum(len(blob) for of_image in blobs for blob in of_image)

    def drop_graph(self) -> None:
        """Drop the graph for gradients, which holds the network's activations."""
        self.recording = without_graph(self.recording)


def look_at(net: Any, images: Float[Tensor, "1 C height width"], cut: AbstractContextManager[object]) -> Look:
    """Record a network on a picture, with the graph for gradients.

    Args:
        net: The network.
        images: The picture, normalised.
        cut: What is cut in the network meanwhile.

    Raises:
        UserError: If the network cannot be recorded.
        NotFinite: If its output holds NaN or infinity.
    """
    with cut:
        recording, logits = record_logits(net, images)
    return Look(images, recording, check_logits(logits))


def predict(net: Any, images: Float[Tensor, "1 C height width"], cut: AbstractContextManager[object]) -> Tensor:
    """Compute the logits of a picture by a plain forward; arguments and errors as for :func:`look_at`."""
    check_images(net, images)
    with torch.no_grad(), cut:
        logits = logits_of(call_network(net, images))
    return check_logits(logits)


def without_graph(recording: Recording) -> Recording:
    """Copy a recording without its graph; queries, keys and values are shared with it."""
    forwards = [
        Forward(tuple((name, replace(call, output=None)) for name, call in forward.calls))
        for forward in recording.forwards
    ]
    return replace(recording, gradients=False, forwards=forwards)


def _tensors(recording: Recording) -> Iterator[Tensor]:
    for forward in recording.forwards:
        for _, call in forward.calls:
            yield from (each for each in (call.q, call.k, call.v, call.mask) if each is not None)
