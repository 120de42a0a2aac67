"""Loaders that yield augmented, normalised batches on the training device, as timm's ``PrefetchLoader`` does.

A sampler chooses the images, :class:`MemoryBatches` gathers them on the device or :class:`WorkerBatches` copies them
there from a worker, and the loader augments and normalises them. Nothing is left for Lightning's transfer hooks.

These loaders are no ``DataLoader``, so Lightning does not replace their samplers, which handle ranks,
``overfit_batches`` and resuming within an epoch themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from vit_attn.data.loading.device_dataset import DeviceDataset, DeviceImageList, Pixels
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.loading.sampler import Addresses
from vit_attn.data.loading.workers import DecodedBatch
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.batch import alternating_flips, augment_batch, random_resized_crops
from vit_attn.data.transforms.mixup import mix
from vit_attn.data.transforms.rng import BatchRNG, to_device

Images = Float[Tensor, "B C height width"]
Targets = Int64[Tensor, " B"] | Float[Tensor, "B classes"]
Normalize = Callable[[UInt8[Tensor, "B C height width"]], Images]


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
    """Where a loader's batches come from."""

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


class DeviceLoader:
    """Normalised images and labels, batch by batch, on the device of the training.

    Args:
        batches: Where batches come from.
        normalize: From pixels to what the network takes.
        progress: Progress of the run, which has a Trainer's device.
        device: The device, instead of the Trainer's; without a Trainer by default the CPU.
        batch_sampler: Records the indices of each batch, which Lightning hands to a ``BasePredictionWriter``.
    """

    def __init__(
        self,
        batches: BatchSource,
        normalize: Normalize,
        progress: RunProgress,
        device: torch.device | str | None = None,
        batch_sampler: Any = None,
    ) -> None:
        self.batches, self.normalize, self.progress = batches, normalize, progress
        self.batch_sampler = batch_sampler
        self._device = None if device is None else torch.device(device)

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self._device or self.progress.device

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Images, Targets]]:
        """Images and labels of each batch."""
        for images, labels, _ in self.batches.on(self.device):
            yield self.normalize(cast(Tensor, images)), labels

    @property
    def _iterator(self) -> Any:
        """The worker processes, by the name at which Lightning looks for them in a ``DataLoader`` to end them."""
        return getattr(getattr(self.batches, "loader", None), "_iterator", None)

    @_iterator.setter
    def _iterator(self, value: None) -> None:
        if isinstance(self.batches, WorkerBatches):
            self.batches.loader._iterator = value


@dataclass(frozen=True)
class TrainingTransform:
    """Augmentation of a training batch, with normalisation; its random numbers depend on (seed, step) alone.

    Args:
        augment: Settings of what is done on the device.
        normalize: From pixels to what the network takes.
        img_size: Height and width in pixels that the network takes.
        num_images: Number of training images.
        num_classes: Number of classes.
        seed: Seed of the augmentation.
    """

    augment: Augment
    normalize: Normalize
    img_size: tuple[int, int]
    num_images: int
    num_classes: int
    seed: int

    def __call__(self, batch: RawBatch, progress: RunProgress, step: int) -> tuple[Images, Targets]:
        """Images as the network takes them, and class indices, or class probabilities where images are mixed."""
        images, labels, addresses = batch
        settings, device = self.augment, labels.device
        rng = BatchRNG((self.seed, step), len(labels), progress.rank, progress.world_size, device)
        mirrored = None
        if settings.flip_alternating and addresses is not None:
            mirrored = to_device(alternating_flips(addresses, self.num_images, self.seed).numpy(), device)
        if isinstance(images, list):
            images = random_resized_crops(images, settings.random_resized_crop or 1.0, rng, self.img_size)
            settings = replace(settings, random_resized_crop=0.0)
        mixed = augment_batch(images, settings, self.normalize, rng, mirrored)
        mix_until = 1.0 if settings.mix_until is None else settings.mix_until
        if (settings.mixup or settings.cutmix) and progress.fraction < mix_until:
            return mix(mixed, labels, self.num_classes, settings.mixup or 0.0, settings.cutmix or 0.0, rng)
        return mixed, labels


@runtime_checkable
class EpochOrder(Protocol):
    """Order of the images of an epoch, with its state for a checkpoint: a sampler, or the loader of a stream."""

    epoch: int

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration gives."""
        ...

    def state_dict(self) -> dict[str, int]:
        """State for a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed."""
        ...


class TrainingLoader(DeviceLoader):
    """Augmented, normalised training batches in a new order each epoch; a run stopped within an epoch resumes there.

    A Trainer sets the epoch. Without one, each iteration is the next epoch, or the one that ``set_epoch`` sets.

    Args:
        batches: Where batches come from.
        transform: Augments and normalises them.
        sampler: Order of the images, with its state for a checkpoint.
        progress: Progress of the run.
        device: The device, instead of the Trainer's; without a Trainer by default the CPU.
    """

    def __init__(
        self,
        batches: BatchSource,
        transform: TrainingTransform,
        sampler: EpochOrder,
        progress: RunProgress,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(batches, transform.normalize, progress, device)
        self.transform, self.sampler = transform, sampler

    def __iter__(self) -> Iterator[tuple[Images, Targets]]:
        """Images and targets of each batch."""
        # a generator, since Lightning makes the iterator before it restores the epoch that it resumes
        epoch, alone = self.sampler.epoch, self.progress.trainer is None
        try:
            for number, batch in enumerate(self.batches.on(self.device), epoch * len(self)):
                yield self.transform(batch, self.progress, number if alone else self.progress.step)
        finally:
            if alone:
                self.sampler.set_epoch(epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which decides on order and augmentation."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """State for a checkpoint, which Lightning asks for."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed."""
        self.sampler.load_state_dict(state)
