"""Batches of the images that come one after another, where a run that was stopped goes on."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vit_attn.data.datasets.streams import Stream, told
from vit_attn.data.loading.device import DecodedBatch
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.transforms.rng import seed_of, seeded
from vit_attn.errors import UserError

Item = tuple[Tensor, int, str | None]
"""Pixels, label, and what is wrong with the image."""
Transform = Callable[[Image.Image], Tensor]


class StreamImages(IterableDataset):
    """The images of a stream, transformed one by one where they are read; what cannot be read ends it, and is told.

    What is random in a transform depends on (seed, rank, epoch, worker, number of the image) alone.

    Args:
        stream: The split.
        transform: From a picture to pixels.
        channels: 3 for colour, 1 for grey.
        rank: Which of the ranks reads.
        options: ``training``, ``batch_size`` and ``seed``, as :meth:`Stream.open` takes them.
    """

    def __init__(self, stream: Stream, transform: Transform, channels: int, rank: int = 0, **options: Any) -> None:
        self.stream, self.transform, self.channels, self.rank = stream, transform, channels, rank
        self.items = stream.open(**options)
        self.batch_size, self.seed = options.get("batch_size", 1), options.get("seed", 0)
        self.epoch = self.taken = 0

    def begin(self, epoch: int, taken: int) -> None:
        """Where the workers begin that are started next.

        Args:
            epoch: The epoch.
            taken: Batches of it, of all workers, for which nothing is transformed any more: they are given as None.
        """
        self.epoch, self.taken = epoch, taken
        self.items.set_epoch(epoch)

    def __iter__(self) -> Iterator[Item | None]:
        """Pixels and label of each image, and what is wrong with it."""
        name, info = self.stream.name, get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        passed = -((worker - self.taken) // workers) * self.batch_size  # workers give a batch each in turn
        try:
            for number, (picture, label) in enumerate(told(self.items, name)):
                if number < passed:
                    yield None
                    continue
                image = self.stream.picture_of(picture, self.channels)
                with seeded(self.seed, self.rank, self.epoch, worker, number):
                    pixels = self.transform(image)
                yield pixels, int(label), None
        except UserError as error:  # raised in a worker, its traceback would be all that the user sees
            black = unread(self.transform, self.channels, error)
            yield from repeat(black, self.batch_size)  # a part of a batch would be dropped


def unread(transform: Transform, channels: int, error: UserError) -> Item:
    """A black image, and what is wrong with the one in whose place it is."""
    return transform(Image.new("RGB" if channels == 3 else "L", (1, 1))), 0, str(error)


class StreamLoader(DataLoader):
    """Training batches of a stream, from which a run that was stopped within an epoch goes on.

    Args:
        images: A :class:`StreamImages`.
        place: Tells, whenever it is asked, the epoch and how much of it the run that is resumed had taken.
        seed: By which, with the epoch, the readers in the workers are seeded.
        **options: Those of ``DataLoader``.
    """

    def __init__(self, images: Any, place: RunProgress, seed: int, **options: Any) -> None:
        # lightning cannot know that timm's readers share the images out to the workers themselves
        warnings.filterwarnings("ignore", message=".*IterableDataset. has .__len__. defined")
        self.draws = torch.Generator()
        super().__init__(images, drop_last=True, collate_fn=stacked, generator=self.draws, **options)
        self.images, self.place, self.seed = images, place, seed
        self.dealt: dict[str, int] = {}
        images.items.set_loader_cfg(num_workers=self.num_workers)

    def __len__(self) -> int:
        """Batches of an epoch; each worker gives whole ones."""
        return len(self.images.items) // (self.batch_size or 1)

    def __iter__(self) -> Any:
        """Batches, from the moment that the first is asked for, when lightning has restored the epoch.

        Raises:
            UserError: If the run was stopped within this epoch with another number of workers or devices.
        """
        epoch, taken = self.place.epoch, self._taken()
        self.images.begin(epoch, taken)
        self.draws.manual_seed(seed_of(self.seed, epoch))
        for number, batch in enumerate(super().__iter__()):
            if number >= taken:
                yield batch

    def _taken(self) -> int:
        taken, stream = self.place.taken, self.images.stream
        if not taken:
            return 0
        if not stream.repeats_its_order:
            rank_zero_warn(
                f"{stream.name} has another order each time that it is read: of the epoch in which the run was "
                f"stopped, some of the images of the first {taken} batches come again"
            )
            return 0
        stopped = self.dealt or self.place.dealt
        for name, now in self.state_dict().items():
            if (then := stopped.get(name, now)) != now:
                raise UserError(
                    f"the run was stopped within an epoch of {stream.name}, and what is left of it depends on {name}: "
                    f"it is {now} here and was {then}; set --{name}={then}"
                )
        return taken

    def state_dict(self) -> dict[str, int]:
        """By what the images of an epoch are dealt; lightning keeps the epoch and the batches that were taken."""
        ranks, _ = self.place.ranks
        return {
            "data.num_workers": self.num_workers,
            "data.batch_size": self.batch_size or 1,
            "trainer.devices": ranks,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep by what they were dealt in the run that is resumed."""
        self.dealt = dict(state)


def stacked(items: Sequence[Item | None]) -> DecodedBatch | None:
    """A batch of single images; None for one that was taken before the run was stopped."""
    there = [item for item in items if item is not None]
    return batch_of(there) if there else None


def batch_of(items: Sequence[Item]) -> DecodedBatch:
    """A batch of single images."""
    images, labels, faults = zip(*items, strict=True)
    return DecodedBatch(
        torch.stack(images), torch.tensor(labels), tuple(fault for fault in faults if fault is not None)
    )
