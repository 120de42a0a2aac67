"""A whole split in memory as one tensor: a batch is one gather, and its address says which images it holds."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

Batch = tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]
Transform = Callable[[UInt8[Tensor, "C height width"]], UInt8[Tensor, "C height width"]]


class Images(Dataset):
    """Decoded images and labels, addressed by ``epoch * len(self) + index``.

    The address carries the epoch, so that a random transform draws the same parameters for an image of an epoch in
    any number of workers, and in a resumed run.

    Args:
        images: Pixels, uint8.
        labels: Class indices.
        transform: What is done to each image by itself; its torch randomness comes from (seed, address).
        seed: Seed of the transform.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "B C height width"],
        labels: Int64[Tensor, " B"],
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        self.images, self.labels, self.transform, self.seed = images, labels, transform, seed

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "C height width"], int]:
        """One image and its label, by address."""
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])

    def __getitems__(self, addresses: Sequence[int]) -> Batch:
        """A batch, which a ``DataLoader`` asks for by this name."""
        indices = torch.tensor(addresses) % len(self)
        images = self.images[indices]
        if self.transform is not None:
            images = torch.stack([self._seeded(self.transform, *pair) for pair in zip(images, addresses, strict=True)])
        return images, self.labels[indices]

    def _seeded(self, transform: Transform, image: Tensor, address: int) -> Tensor:
        before = torch.get_rng_state()
        try:  # the CPU's generator alone: torch.manual_seed would reseed the GPU's too, and for good
            torch.default_generator.manual_seed(hash((self.seed, address)))  # of integers: the same in every process
            return transform(image)
        finally:
            torch.set_rng_state(before)


class EpochShuffle(DistributedSampler):
    """Addresses of all images in an order drawn from (seed, epoch), shared out among the ranks."""

    def __iter__(self) -> Iterator[int]:
        """Addresses for :class:`Images`."""
        images: Any = self.dataset
        offset = self.epoch * len(images)
        return (offset + index for index in super().__iter__())
