"""How the images of a split are dealt to several devices that measure it."""

from collections.abc import Iterator, Sized
from itertools import repeat
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from vit_attn.data.datasets.streams import Stream, told
from vit_attn.data.loading.device import DecodedBatch, Numbering
from vit_attn.data.loading.streams import Item, Transform, batch_of, unread
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError


class EvaluationBatches(DistributedSampler):
    """All images of a split, each once: the next of its order for all ranks together, a batch for each.

    A contract that others build on: every rank has the same number of batches, and none of them is empty, so that a
    collective call in each batch, such as agreeing to stop, meets its counterparts. Lightning's own sampler keeps it
    by giving some images to two ranks, which then count twice.

    Args:
        images: What has a length, that of the split.
        batch_size: Most images of a batch on each rank; 1 is taken as 2, without which a batch could be empty.
        name: What a message calls the split.
        order: Gives the indices of that many images in the order in which they are measured.
        **ranks: ``num_replicas`` and ``rank``, as ``DistributedSampler`` takes them.

    Raises:
        UserError: If there are fewer images than ranks.
    """

    def __init__(
        self, images: Sized, batch_size: int, name: str, order: Numbering = lasting_order, **ranks: Any
    ) -> None:
        super().__init__(cast(Dataset, images), shuffle=False, **ranks)
        self.count, self.batch_size, self.order = len(images), max(2, batch_size), order
        if self.count < self.num_replicas:
            raise UserError(too_few(f"the {name} split", self.count, self.num_replicas))

    def __len__(self) -> int:
        """Batches on each rank."""
        return -(-self.count // (self.num_replicas * self.batch_size))

    def __iter__(self) -> Iterator[Int64[Tensor, " B"]]:
        """Indices, a batch at a time."""
        for step in self.order(self.count).tensor_split(len(self)):
            yield step.tensor_split(self.num_replicas)[self.rank]


class DealtStream(IterableDataset):
    """What one of several ranks measures of a stream, in batches: every so many of its images.

    Every rank reads the whole stream. All of them have the same number of batches and none is empty, as
    :class:`EvaluationBatches` has it, so a batch is held back until the next is known.

    Args:
        stream: The split.
        transform: From a picture to pixels.
        channels: 3 for colour, 1 for grey.
        batch_size: Images of a batch, at least 2.
        ranks: Number of ranks, and which of them this is.

    Raises:
        UserError: If there are fewer images than ranks.
    """

    def __init__(
        self, stream: Stream, transform: Transform, channels: int, batch_size: int, ranks: tuple[int, int]
    ) -> None:
        self.stream, self.transform, self.channels = stream, transform, channels
        self.batch_size, self.ranks = batch_size, ranks
        if stream.count < ranks[0]:
            raise UserError(too_few(stream.name, stream.count, ranks[0]))
        self.items = stream.open()

    def __iter__(self) -> Iterator[DecodedBatch]:
        """Batches."""
        (world_size, rank), given, total = self.ranks, 0, 0
        held: list[Item] = []
        for picture, label in self._each():
            if total % world_size == rank:
                if len(held) == 2 * self.batch_size - 1:
                    yield batch_of(held[: self.batch_size])
                    held, given = held[self.batch_size :], given + 1
                held.append(self._item(picture, label))
            total += 1
        left = -(-total // (world_size * self.batch_size)) - given
        for part in torch.arange(len(held)).tensor_split(left):
            yield batch_of([held[i] for i in part.tolist()])

    def _each(self) -> Iterator[tuple[Any, Any]]:
        """What the reader gives, and in the end why it failed, where it did."""
        try:
            yield from told(self.items, self.stream.name)
        except UserError as error:
            yield from repeat((error, 0), self.ranks[0])

    def _item(self, picture: Any, label: Any) -> Item:
        try:
            if isinstance(picture, UserError):
                raise picture
            image = self.stream.picture_of(picture, self.channels)
            return self.transform(image), int(label), None
        except UserError as error:
            return unread(self.transform, self.channels, error)


def too_few(what: str, images: int, ranks: int) -> str:
    """The message where a rank would have nothing to measure."""
    return f"{what} has {images} images to measure, fewer than the {ranks} devices: set trainer.devices"
