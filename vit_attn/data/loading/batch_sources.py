"""Sources of a loader's batches: the memory of a device, or workers that read files."""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader

from vit_attn.data.loading.device_dataset import DeviceDataset, DeviceImageList, Pixels
from vit_attn.data.loading.sampler import Addresses
from vit_attn.data.loading.workers import DecodedBatch


class RawBatch(NamedTuple):
    """A batch on its device before augmentation.

    Args:
        images: Pixels.
        labels: Class indices.
        addresses: Address of each image, on the host; None from workers.
    """

    images: Pixels
    labels: Int64[Tensor, " B"]
    addresses: Addresses | None = None


@runtime_checkable
class BatchSource(Protocol):
    """Source of a loader's batches."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def on(self, device: torch.device) -> Iterator[RawBatch]:
        """The batches of an epoch, on a device."""
        ...


@runtime_checkable
class SizedBatches(Sized, Iterable[Addresses], Protocol):
    """A sampler of whole batches."""


class MemoryBatches:
    """Batches gathered from a split in the device's memory.

    Args:
        sampler: Yields the addresses of each batch.
        split_on: Gives the split on a device.
    """

    def __init__(
        self, sampler: SizedBatches, split_on: Callable[[torch.device], DeviceDataset | DeviceImageList]
    ) -> None:
        self.sampler, self.split_on = sampler, split_on

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sampler)

    def on(self, device: torch.device) -> Iterator[RawBatch]:
        """The batches of an epoch, gathered on the device."""
        split = self.split_on(device)
        for addresses in self.sampler:
            images, labels = split.gather(addresses)
            yield RawBatch(images, labels, addresses)


class WorkerBatches:
    """Batches decoded by workers, copied to the device; from pinned memory, the host does not wait for a GPU's copy.

    Args:
        loader: A ``DataLoader`` that yields :class:`DecodedBatch`.
        skip_corrupt: Whether corrupt files were left out beforehand, for the message about another one.
    """

    def __init__(self, loader: DataLoader, skip_corrupt: bool) -> None:
        self.loader, self.skip_corrupt = loader, skip_corrupt

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.loader)

    def on(self, device: torch.device) -> Iterator[RawBatch]:
        """The batches of an epoch, copied to the device.

        Raises:
            UserError: If a worker could not read a file.
        """
        batch: DecodedBatch
        for batch in self.loader:
            images, labels = batch.intact(self.skip_corrupt)
            yield RawBatch(*(each.to(device, non_blocking=device.type == "cuda") for each in (images, labels)))
