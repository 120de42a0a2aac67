"""Decoded splits in the memory of a device, from which a batch is one gather."""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vit_attn.data.datasets.image_list import DecodedImageList, FullSizeImage
from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.cache import SplitCache
from vit_attn.data.transforms.packing import to_device

Pixels = UInt8[Tensor, "B C height width"] | list[FullSizeImage]
"""Images of one size, or of different ones."""


class DeviceDataset:
    """Images of one size on a device.

    Args:
        images: Pixels.
        labels: Class indices.
        device: The device.
    """

    def __init__(
        self, images: UInt8[Tensor, "B C height width"], labels: Int64[Tensor, " B"], device: torch.device | str
    ) -> None:
        self.images, self.labels = images.to(device), labels.to(device)

    def gather(self, addresses: Int64[Tensor, " B"]) -> tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]:
        """Images and labels of a batch; ``addresses`` are on the host."""
        indices = to_device(addresses.numpy() % len(self.images), self.images.device)
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)


class DeviceImageList:
    """Images of different sizes on a device.

    Args:
        pictures: Decoded images.
        labels: Class indices.
        device: The device.
    """

    def __init__(self, pictures: DecodedImageList, labels: Int64[Tensor, " B"], device: torch.device | str) -> None:
        self.pixels, self.labels = [each.to(device) for each in pictures.pixels], labels.to(device)

    def gather(self, addresses: Int64[Tensor, " B"]) -> tuple[list[FullSizeImage], Int64[Tensor, " B"]]:
        """Images and labels of a batch; ``addresses`` are on the host."""
        indices = addresses % len(self.pixels)
        return [self.pixels[index] for index in indices.tolist()], self.labels.index_select(
            0, to_device(indices.numpy(), self.labels.device)
        )


class DeviceSplits:
    """Splits by name and device, each copied to its device at its first use.

    Args:
        cache: The decoded splits.
    """

    def __init__(self, cache: SplitCache) -> None:
        self.cache = cache
        self.copies: dict[tuple[str, torch.device], DeviceDataset | DeviceImageList] = {}

    def get(self, name: str, device: torch.device) -> DeviceDataset | DeviceImageList:
        """A split on a device."""
        if (name, device) not in self.copies:
            self.copies[name, device] = on_device(self.cache.splits[name], device)
        return self.copies[name, device]

    def clear(self) -> None:
        """Drop the copies, since the splits have changed."""
        self.copies.clear()


def on_device(split: Split, device: torch.device | str) -> DeviceDataset | DeviceImageList:
    """Copy a decoded split to a device."""
    if split.full_size is not None:
        return DeviceImageList(split.full_size, split.labels, device)
    return DeviceDataset(split.decoded(), split.labels, device)
