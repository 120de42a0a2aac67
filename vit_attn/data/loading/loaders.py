"""Builder of the loaders of a data set: from the device's memory, from workers, or from a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from lightning.pytorch.overrides.distributed import _IndexBatchSamplerWrapper
from torch import Tensor
from torch.utils.data import DataLoader

from vit_attn.data.datasets.splits import Split
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.decoding import available_cores
from vit_attn.data.loading.balance import balanced_order
from vit_attn.data.loading.batch_sources import BatchSource, MemoryBatches, SizedBatches, WorkerBatches
from vit_attn.data.loading.cache import SplitCache
from vit_attn.data.loading.device import DeviceLoader, Normalize, TrainingLoader, TrainingTransform
from vit_attn.data.loading.device_dataset import DeviceSplits
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.loading.sampler import EvaluationBatches, FixedBatches, FixedOrder, ShuffledBatches
from vit_attn.data.loading.streams import ShardedStream, StreamImages, StreamLoader, collate
from vit_attn.data.loading.workers import DecodingDataset
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.host import CentreCrop, HostAugment, device_part
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError
from vit_attn.training.stopping import ignore_signals, is_listening

Balance = Literal["none", "loss", "sampling"]
Device = torch.device | str | None
MAX_WORKERS = 16


class RecordedBatches(_IndexBatchSamplerWrapper):
    """A sampler whose indices Lightning hands to a ``BasePredictionWriter``, which finds them by this base class."""

    def __next__(self) -> Any:
        """Indices of the next batch."""
        batch = next(cast(Iterator[Tensor], self._iterator))
        self.seen_batch_indices.append(batch.tolist())
        return batch


@dataclass(frozen=True)
class LoaderSettings:
    """Settings that all loaders of a data set share.

    Args:
        augment: Augmentation of training images.
        batch_size: Images per batch on each device.
        seed: Seed of shuffling and augmentation.
        balance: Whether training draws all classes equally often.
        num_workers: Processes that read images; by default the number of cores per device.
        compile_augment: Whether the augmentation on the device is compiled.
    """

    augment: Augment
    batch_size: int
    seed: int = 0
    balance: Balance = "none"
    num_workers: int | None = None
    compile_augment: bool = False


@dataclass(frozen=True)
class Loaders:
    """Builder of the loaders of a data set.

    Args:
        cache: The splits.
        settings: Settings of the loaders.
        normalize: From pixels to what the network takes.
        on_device: The splits on devices, for images in memory.
    """

    cache: SplitCache
    settings: LoaderSettings
    normalize: Normalize
    on_device: DeviceSplits = field(repr=False)

    def check(self) -> None:
        """Refuse an augmentation that needs all images in the device's memory where they are not.

        Raises:
            UserError: If so.
        """
        if self.settings.augment.flip_alternating and not self.cache.in_memory:
            raise UserError("augment.flip_alternating needs all images on the device: set loader to memory")

    def training(self, progress: RunProgress, device: Device = None) -> TrainingLoader:
        """Augmented training batches of this rank.

        Args:
            progress: Progress of the run.
            device: The device, instead of the Trainer's.
        """
        self.check()
        split, settings, in_memory = self.cache.ready("train"), self.settings, self.cache.in_memory
        if split.stream is not None and not in_memory:
            order: Any = self._stream_loader(split.stream, progress)
            batches: BatchSource = WorkerBatches(order, self.cache.skip_corrupt)
        else:
            order = self.training_sampler(split, progress)
            batches = self._batches("train", split, order, progress, HostAugment(self.cache.size, settings.augment))
        transform = TrainingTransform(
            settings.augment if in_memory else device_part(settings.augment),
            self.normalize,
            self.cache.size,
            len(split),
            len(self.cache.source.class_names),
            settings.seed,
            settings.compile_augment,
        )
        return TrainingLoader(batches, transform, order, progress, device)

    def training_sampler(self, split: Split, progress: RunProgress) -> ShuffledBatches:
        """Order of the training images, sharded by rank."""
        settings = self.settings
        options = {"num_replicas": progress.world_size, "rank": progress.rank, "seed": settings.seed * 1_000_003}
        if progress.overfits:
            return FixedBatches(split.labels, settings.batch_size, **options)
        order = balanced_order(split.labels) if settings.balance == "sampling" else None
        return ShuffledBatches(split.labels, settings.batch_size, order, **options)

    def evaluation(
        self, name: str, progress: RunProgress, device: Device = None, order: FixedOrder = lasting_order
    ) -> DeviceLoader:
        """Batches of all images of a split, each image once; each of several ranks has as many batches.

        Args:
            name: The split.
            progress: Progress of the run.
            device: The device, instead of the Trainer's.
            order: Order of the images; a stream keeps its own.
        """
        split = self.cache.ready(name)
        if split.stream is not None and not self.cache.in_memory:
            batches: BatchSource = WorkerBatches(self._stream_in_order(split.stream, progress), self.cache.skip_corrupt)
            return DeviceLoader(batches, self.normalize, progress, device)
        ranks = {"num_replicas": progress.world_size, "rank": progress.rank}
        sampler: Any = EvaluationBatches(split.labels, self.settings.batch_size, name, order, **ranks)
        recorded = RecordedBatches(sampler)
        batches = self._batches(name, split, recorded, progress, CentreCrop(self.cache.size))
        return DeviceLoader(batches, self.normalize, progress, device, recorded)

    def _batches(
        self,
        name: str,
        split: Split,
        sampler: SizedBatches,
        progress: RunProgress,
        transform: CentreCrop | HostAugment,
    ) -> BatchSource:
        """Batches of a split that is no stream, or is in memory."""
        if self.cache.in_memory:
            return MemoryBatches(sampler, lambda device: self.on_device.get(name, device))
        images = DecodingDataset(split, transform, self.cache.channels, self.settings.seed)
        loader = DataLoader(images, batch_size=None, sampler=sampler, **self._worker_options(progress))
        return WorkerBatches(loader, self.cache.skip_corrupt)

    def _stream_loader(self, stream: Stream, progress: RunProgress) -> StreamLoader:
        """Training batches of a stream."""
        settings = self.settings
        if settings.balance == "sampling":
            raise UserError(f"balance=sampling cannot choose among the images of {stream.name}: set loader to memory")
        workers = self._worker_options(progress) | {"persistent_workers": False}  # which begin anew in every epoch
        most = stream.max_workers(progress.world_size) or MAX_WORKERS
        workers["num_workers"] = max(1, min(workers["num_workers"], most))
        images = StreamImages(
            stream,
            HostAugment(self.cache.size, settings.augment),
            self.cache.channels,
            progress.rank,
            training=True,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        return StreamLoader(images, progress.world_size, settings.seed, batch_size=settings.batch_size, **workers)

    def _stream_in_order(self, stream: Stream, progress: RunProgress) -> DataLoader:
        """Batches of a stream for evaluation."""
        crop, batch_size, workers = (
            CentreCrop(self.cache.size),
            self.settings.batch_size,
            self._worker_options(progress),
        )
        if progress.world_size == 1:
            images = StreamImages(stream, crop, self.cache.channels)
            return DataLoader(images, batch_size=batch_size, collate_fn=collate, **workers)
        ranks = progress.world_size, progress.rank
        shard = ShardedStream(stream, crop, self.cache.channels, max(2, batch_size), *ranks)
        return DataLoader(shard, batch_size=None, **(workers | {"num_workers": min(1, workers["num_workers"])}))

    def _worker_options(self, progress: RunProgress) -> dict[str, Any]:
        """Options of a ``DataLoader`` whose workers read files."""
        workers = self.settings.num_workers
        if workers is None:
            workers = max(1, min(available_cores() // progress.local_devices, MAX_WORKERS))
        pinned = torch.cuda.is_available()
        options = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned}
        return options | ({"worker_init_fn": ignore_signals} if is_listening() else {})
