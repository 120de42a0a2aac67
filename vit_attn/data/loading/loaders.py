"""Loaders of a data set's batches: of addresses for images in memory, of pixels from workers for all others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from vit_attn.data.datasets.splits import Split
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.decoding import cores
from vit_attn.data.loading.balance import balanced
from vit_attn.data.loading.cache import SplitCache
from vit_attn.data.loading.device import IndexDataset, Numbering, ResumableLoader, ShuffledBatches
from vit_attn.data.loading.evaluation import DealtStream, EvaluationBatches
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.loading.streams import StreamImages, StreamLoader, stacked
from vit_attn.data.loading.workers import DecodingDataset
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.host import Augmented, Centre
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError
from vit_attn.training.stopping import ignore_signals, is_listening

Balance = Literal["none", "loss", "sampling"]
MOST_WORKERS = 16


@dataclass(frozen=True)
class Loaders:
    """What all loaders of a data set have in common.

    Args:
        store: The splits.
        augment: What happens to training images.
        batch_size: Images of a batch on each device.
        seed: Seed of shuffles and augmentation.
        balance: Whether each class is drawn as often.
        num_workers: Processes that read images; by default as many as there are cores for each device.
    """

    store: SplitCache
    augment: Augment
    batch_size: int
    seed: int
    balance: Balance
    num_workers: int | None

    def training(self, place: RunProgress) -> DataLoader:
        """Shuffled batches of this rank.

        Args:
            place: Tells, whenever it is asked, the epoch and how much of it the run that is resumed had taken.
        """
        split = self.store.ready("train")
        if split.stream is not None and not self.store.in_memory:
            return self._streamed(split.stream, place)
        batches = self.batches(split, place)
        if self.store.in_memory:
            loader = ResumableLoader(
                IndexDataset(len(split), "train", self.batch_size), batch_size=None, sampler=batches
            )
        else:
            augmented = Augmented(self.store.size, self.augment)
            images = DecodingDataset(split, augmented, self.store.channels, self.seed, self.batch_size)
            loader = ResumableLoader(images, batch_size=None, sampler=batches, **self._reading(place.devices))
        loader.place = place
        return loader

    def batches(self, split: Split, place: RunProgress) -> ShuffledBatches:
        """How the training images are shuffled and dealt to the ranks."""
        order = balanced(split.labels) if self.balance == "sampling" else None
        # lightning leaves a distributed sampler alone, and replaces any other and a batch sampler
        world_size, rank = place.ranks
        ranks = {"num_replicas": world_size, "rank": rank, "seed": self.seed * 1_000_003}
        return ShuffledBatches(split.labels, self.batch_size, lambda: place.taken, order, **ranks)

    def _streamed(self, stream: Stream, place: RunProgress) -> DataLoader:
        if self.balance == "sampling":
            raise UserError(f"balance=sampling cannot choose among the images of {stream.name}: set loader to memory")
        augmented, (world_size, rank) = Augmented(self.store.size, self.augment), place.ranks
        options = {"training": True, "batch_size": self.batch_size, "seed": self.seed}
        reading = self._reading(place.devices) | {"persistent_workers": False}  # which begin anew in every epoch
        reading["num_workers"] = max(1, min(reading["num_workers"], stream.most_workers(world_size) or MOST_WORKERS))
        images = StreamImages(stream, augmented, self.store.channels, rank, **options)
        return StreamLoader(images, place, self.seed, batch_size=self.batch_size, **reading)

    def once(self, name: str, place: RunProgress, order: Numbering = lasting_order) -> DataLoader:
        """All images of a split, each once; of several ranks, each has its part, and as many batches.

        Args:
            name: The split.
            place: Tells how many ranks there are.
            order: In which order they come, but for those of a stream.
        """
        split, (world_size, _) = self.store.ready(name), place.ranks
        if world_size > 1:
            return self._dealt(split, name, place, order)
        if self.store.in_memory:
            picks = IndexDataset(len(split), name, order=order)
            return DataLoader(picks, batch_size=self.batch_size, collate_fn=as_it_is)
        images, collate = self._one_by_one(split, order)
        return DataLoader(images, batch_size=self.batch_size, collate_fn=collate, **self._reading(place.devices))

    def _one_by_one(self, split: Split, order: Numbering) -> tuple[Any, Callable[[Any], Any]]:
        centre = Centre(self.store.size)
        if split.stream is not None:
            return StreamImages(split.stream, centre, self.store.channels), stacked
        return DecodingDataset(split, centre, self.store.channels, order=order), as_it_is

    def _dealt(self, split: Split, name: str, place: RunProgress, order: Numbering) -> DataLoader:
        world_size, rank = place.ranks
        centre, reading = Centre(self.store.size), self._reading(place.devices)
        if split.stream is not None and not self.store.in_memory:
            images: Any = DealtStream(split.stream, centre, self.store.channels, max(2, self.batch_size), place.ranks)
            return DataLoader(images, batch_size=None, **(reading | {"num_workers": min(1, reading["num_workers"])}))
        ranks = {"num_replicas": world_size, "rank": rank}
        batches = EvaluationBatches(range(len(split)), self.batch_size, name, order, **ranks)
        if self.store.in_memory:
            return DataLoader(IndexDataset(len(split), name, self.batch_size), batch_size=None, sampler=batches)
        images = DecodingDataset(split, centre, self.store.channels, batch_size=self.batch_size)
        return DataLoader(images, batch_size=None, sampler=batches, **reading)

    def _reading(self, devices: int) -> dict[str, Any]:
        """Options of a loader whose workers read files."""
        workers = max(1, min(cores() // devices, MOST_WORKERS)) if self.num_workers is None else self.num_workers
        pinned = torch.cuda.is_available()
        options = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned}
        return options | ({"worker_init_fn": ignore_signals} if is_listening() else {})


def as_it_is(batch: Any) -> Any:
    """The batch; the data set has collated it already."""
    return batch
