"""Images of ``judge``, of which a part at a time is in the network's size: of a data set, or pictures of the user."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_patches, why_ground_truth_is_unused
from vit_attn.attention_maps.evaluation.measures import KNOCKED_OUT
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.console import CONSOLE
from vit_attn.data_protocol import ProbeData
from vit_attn.errors import one_line
from vit_attn.inference.images import ImageReader, read_ahead, to_batch
from vit_attn.inference.network import TrainedNetwork


@runtime_checkable
class ImageSource(Protocol):
    """Images that are judged, of which a part at a time is in the network's size."""

    @property
    def title(self) -> str:
        """Name of the data set or folder."""
        ...

    @property
    def count(self) -> int:
        """Number of images, some of which may be unreadable."""
        ...

    def select(self, count: int) -> "ImageSource":
        """Select fewer images."""
        ...

    def part(self, images: slice) -> EvalBatch | None:
        """Read some images; None if none of them can be read."""
        ...


class ProbeSource:
    """Validation images of a data module, with their labels and ground truth; pixels are normalised by part.

    Args:
        net: The network, on its device.
        data: The data module.
        count: Number of images.
        device: Device of the network.
        title: Name of the data set.
    """

    def __init__(self, net: nn.Module, data: ProbeData, count: int, device: str, title: str = "") -> None:
        self.net, self.data, self.device, self.title = net, data, device, title
        self.probe = probe = data.probe(count)
        self.count = len(probe.images)
        layout = token_layout(net, data.normalize(probe.images[:1].to(device)))
        if reason := why_ground_truth_is_unused(probe, layout):
            CONSOLE.say(f"vit-attn: {reason}", sys.stderr)
        report_few_patches(layout.grid_size)
        self.ground_truth = ground_truth_patches(probe, layout, device)

    def select(self, count: int) -> "ProbeSource":
        """Select the first images."""
        self.count = min(self.count, count)
        return self

    def part(self, images: slice) -> EvalBatch:
        """Normalise some images."""
        pixels, labels = self.probe.images[: self.count][images], self.probe.labels[: self.count][images]
        truth = self.ground_truth
        if truth is not None:
            regions = {name: mask[: self.count][images] for name, mask in truth.regions.items()}
            truth = replace(truth, regions=regions)
        return EvalBatch(self.net, self.data.normalize(pixels.to(self.device)), labels.to(self.device), truth)


class PictureSource:
    """Pictures of the user without labels, read by part; those that cannot be read are reported and left out.

    Args:
        network: The network, on its device.
        files: Files of the pictures.
        device: Device of the network.
        title: Name of the folder.
    """

    def __init__(self, network: TrainedNetwork, files: Sequence[Path], device: torch.device, title: str) -> None:
        self.network, self.files, self.device, self.title = network, files, device, title
        self.reader, self.reported = ImageReader(network, "crop"), set[str]()

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.files)

    def select(self, count: int) -> "PictureSource":
        """Select pictures evenly from the list, so that all of its folders have their part."""
        total, count = len(self.files), min(count, len(self.files))
        self.files = [self.files[i * total // count] for i in range(count)]
        return self

    def part(self, images: slice) -> EvalBatch | None:
        """Read some pictures."""
        read = [each for batch in read_ahead(self.files[images], self.reader, len(self.files)) for _, each in batch]
        for error in [each for each in read if isinstance(each, str) and each not in self.reported]:
            self.reported.add(error)
            CONSOLE.say(f"vit-attn: {one_line(error)}", sys.stderr)
        pixels = [each for each in read if not isinstance(each, str)]
        return EvalBatch(self.network.net, to_batch(pixels, self.network, self.device)) if pixels else None


def eval_batch_of(net: nn.Module, data: ProbeData, count: int, device: str) -> EvalBatch:
    """Combine a network and the first probe images of a data module, normalised, with their ground truth."""
    return ProbeSource(net, data, count, device).part(slice(None))


def report_few_patches(grid_size: tuple[int, int]) -> None:
    """Say which measure is left out of a network with few patches."""
    patches = grid_size[0] * grid_size[1]
    if patches < max(KNOCKED_OUT):
        CONSOLE.say(
            f"vit-attn: the network has {patches} patches: the knock-out of the {max(KNOCKED_OUT)} top-ranked ones is "
            "left out",
            sys.stderr,
        )
