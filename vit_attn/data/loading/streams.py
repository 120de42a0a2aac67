"""Batches of a stream, read from its beginning by workers; a run stopped within an epoch resumes there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vit_attn.data.datasets.streams import Stream, read_items
from vit_attn.data.loading.sampler import too_few_images
from vit_attn.data.loading.workers import DecodedBatch
from vit_attn.data.transforms.rng import seed_of, seeded
from vit_attn.errors import UserError

Item = tuple[Tensor, int, str | None]
"""Pixels, label, and why the image could not be read, if so."""
Transform = Callable[[Image.Image], Tensor]


class StreamImages(IterableDataset):
    """Transformed images of a stream; one that cannot be read ends it, with its error in the batch.

    The random numbers of a transform depend on (seed, rank, epoch, worker, number of the image) alone.

    Args:
        stream: The split.
        transform: From a picture to pixels.
        channels: 3 for colour, 1 for grey.
        rank: Rank of this process.
        options: ``training``, ``batch_size`` and ``seed`` of :meth:`Stream.open`.
    """

    def __init__(self, stream: Stream, transform: Transform, channels: int, rank: int = 0, **options: Any) -> None:
        self.stream, self.transform, self.channels, self.rank = stream, transform, channels, rank
        self.items = stream.open(**options)
        self.batch_size, self.seed = options.get("batch_size", 1), options.get("seed", 0)
        self.epoch = self.batches_consumed = 0

    def begin(self, epoch: int, batches_consumed: int) -> None:
        """Set where workers start from that are started next.

        Args:
            epoch: The epoch.
            batches_consumed: Batches of it, of all workers, that are skipped: their images come as None, untransformed.
        """
        self.epoch, self.batches_consumed = epoch, batches_consumed
        self.items.set_epoch(epoch)

    def __iter__(self) -> Iterator[Item | None]:
        """Pixels, label and error of each image."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        skipped = -((worker - self.batches_consumed) // workers) * self.batch_size  # workers give a batch each in turn
        try:
            for number, (picture, label) in enumerate(read_items(self.items, self.stream.name)):
                if number < skipped:
                    yield None
                    continue
                image = self.stream.convert(picture, self.channels)
                with seeded(self.seed, self.rank, self.epoch, worker, number):
                    pixels = self.transform(image)
                yield pixels, int(label), None
        except UserError as error:  # raised in a worker, its traceback would be all that the user sees
            black = error_item(self.transform, self.channels, error)
            yield from repeat(black, self.batch_size)  # a part of a batch would be dropped


class StreamLoader(DataLoader):
    """Training batches of a stream; a run stopped within an epoch resumes there.

    Args:
        images: A :class:`StreamImages`.
        world_size: Number of ranks.
        seed: Seeds, with the epoch, the readers in the workers.
        **options: Options of ``DataLoader``.
    """

    def __init__(self, images: Any, world_size: int, seed: int, **options: Any) -> None:
        self.worker_seeds = torch.Generator()
        super().__init__(images, drop_last=True, collate_fn=collate, generator=self.worker_seeds, **options)
        self.images, self.world_size, self.seed = images, world_size, seed
        self.epoch = self.first_batch = 0
        self.loaded_state: dict[str, int] = {}
        images.items.set_loader_cfg(num_workers=self.num_workers)

    def __len__(self) -> int:
        """Batches per epoch; each worker gives whole ones."""
        return len(self.images.items) // (self.batch_size or 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        """Batches that are left of the epoch."""
        first = self.first_batch
        self.images.begin(self.epoch, first)
        self.worker_seeds.manual_seed(seed_of(self.seed, self.epoch))
        for number, batch in enumerate(super().__iter__()):
            if number >= first:
                yield batch

    def start_at(self, batch: int, stopped: Mapping[str, int]) -> None:
        """Set the first batch of the next iteration.

        Args:
            batch: The batch in the epoch, from 0; if it is not 0, a run is resumed within the epoch.
            stopped: State of the run that is resumed, unless :meth:`load_state_dict` got it.

        Raises:
            UserError: If that run had another number of workers or devices, or another batch size.
        """
        self.first_batch, stream = batch, self.images.stream
        if not batch:
            return
        if not stream.repeats_its_order:
            rank_zero_warn(
                f"{stream.name} has another order each time that it is read: of the epoch in which the run was "
                f"stopped, some of the images of the first {batch} batches come again"
            )
            self.first_batch = 0
            return
        for name, now in self.state_dict().items():
            if (before := (self.loaded_state or stopped).get(name, now)) != now:
                raise UserError(
                    f"the run was stopped within an epoch of {stream.name}, and what is left of it depends on {name}: "
                    f"it is {now} here and was {before}; set --{name}={before}"
                )

    def state_dict(self) -> dict[str, int]:
        """Settings that decide how an epoch is sharded; Lightning keeps the epoch and the number of batches."""
        return {
            "data.num_workers": self.num_workers,
            "data.batch_size": self.batch_size or 1,
            "trainer.devices": self.world_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the settings of the run that is resumed, to compare with."""
        self.loaded_state = dict(state)


class ShardedStream(IterableDataset):
    """Batches of a stream for evaluation on several ranks: every n-th image of n ranks.

    Every rank reads all of the stream. All ranks have the same number of batches and none is empty, as with
    :class:`~vit_attn.data.loading.sampler.EvaluationBatches`, so a batch is held back until the next one is known.

    Args:
        stream: The split.
        transform: From a picture to pixels.
        channels: 3 for colour, 1 for grey.
        batch_size: Images per batch, at least 2.
        world_size: Number of ranks.
        rank: Rank of this process.

    Raises:
        UserError: If there are fewer images than ranks.
    """

    def __init__(
        self, stream: Stream, transform: Transform, channels: int, batch_size: int, world_size: int, rank: int
    ) -> None:
        self.stream, self.transform, self.channels = stream, transform, channels
        self.batch_size, self.world_size, self.rank = batch_size, world_size, rank
        if stream.count < world_size:
            raise UserError(too_few_images(stream.name, stream.count, world_size))
        self.items = stream.open()

    def __iter__(self) -> Iterator[DecodedBatch]:
        """Batches."""
        yielded, total = 0, 0
        held: list[Item] = []
        for picture, label in self._items():
            if total % self.world_size == self.rank:
                if len(held) == 2 * self.batch_size - 1:
                    yield decoded_batch(held[: self.batch_size])
                    held, yielded = held[self.batch_size :], yielded + 1
                held.append(self._item(picture, label))
            total += 1
        left = -(-total // (self.world_size * self.batch_size)) - yielded
        for part in torch.arange(len(held)).tensor_split(left):
            yield decoded_batch([held[i] for i in part.tolist()])

    def _items(self) -> Iterator[tuple[Any, Any]]:
        """Items of the reader; if it fails, its error for each rank."""
        try:
            yield from read_items(self.items, self.stream.name)
        except UserError as error:
            yield from repeat((error, 0), self.world_size)

    def _item(self, picture: Any, label: Any) -> Item:
        try:
            if isinstance(picture, UserError):
                raise picture
            image = self.stream.convert(picture, self.channels)
            return self.transform(image), int(label), None
        except UserError as error:
            return error_item(self.transform, self.channels, error)


def error_item(transform: Transform, channels: int, error: UserError) -> Item:
    """A black image in place of one that could not be read, with its error."""
    return transform(Image.new("RGB" if channels == 3 else "L", (1, 1))), 0, str(error)


def collate(items: Sequence[Item | None]) -> DecodedBatch | None:
    """Collate single images; None for a batch that was consumed before the run was stopped."""
    present = [item for item in items if item is not None]
    return decoded_batch(present) if present else None


def decoded_batch(items: Sequence[Item]) -> DecodedBatch:
    """A batch of single images."""
    images, labels, errors = zip(*items, strict=True)
    present = tuple(error for error in errors if error is not None)
    return DecodedBatch(torch.stack(images), torch.tensor(labels), present)
