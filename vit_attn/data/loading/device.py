"""Loaders that yield augmented, normalised batches on the training device, as timm's ``PrefetchLoader`` does.

A sampler chooses the images, a source (:mod:`~vit_attn.data.loading.batch_sources`) brings them to the device, and the
loader augments and normalises them. Nothing is left for Lightning's transfer hooks.

These loaders are no ``DataLoader``, so Lightning does not replace their samplers, which handle ranks,
``overfit_batches`` and resuming within an epoch themselves.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from vit_attn.data.loading.batch_sources import BatchSource, RawBatch, WorkerBatches
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.batch import Images, Targets, augment_batch, draw_parameters
from vit_attn.data.transforms.crops import alternating_flips, random_resized_crops
from vit_attn.data.transforms.rng import BatchRNG

Result = TypeVar("Result")
Normalize = Callable[[UInt8[Tensor, "B C height width"]], Images]


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

    The host draws the numbers and launches the rest without waiting for a GPU. Lightning asks for a batch once the step
    before it is launched, so all this happens while a GPU still computes that step.

    Args:
        augment: Settings of what is done on the device.
        normalize: From pixels to what the network takes.
        img_size: Height and width in pixels that the network takes.
        num_images: Number of training images.
        num_classes: Number of classes.
        seed: Seed of the augmentation.
        compile: Whether ``torch.compile`` makes one graph of the device's part, for each shape of a batch.
    """

    augment: Augment
    normalize: Normalize
    img_size: tuple[int, int]
    num_images: int
    num_classes: int
    seed: int
    compile: bool = False

    @functools.cached_property
    def _augment(self) -> Callable[..., tuple[Images, Targets]]:
        """The device's part, compiled or not."""
        return torch.compile(_copy_code(augment_batch), dynamic=False) if self.compile else augment_batch

    def __call__(self, batch: RawBatch, progress: RunProgress, step: int, fraction: float) -> tuple[Images, Targets]:
        """Images as the network takes them, and class indices, or class probabilities where images are mixed.

        Args:
            batch: Pixels and class indices.
            progress: Progress of the run, for the rank.
            step: Number of the batch in the run, from 0.
            fraction: Fraction of the training that is done, for ``mix_until``.
        """
        images, labels, addresses = batch
        settings, device = self.augment, labels.device
        rng = BatchRNG((self.seed, step), len(labels), progress.rank, progress.world_size)
        flips = None
        if settings.flip_alternating and addresses is not None:
            flips = alternating_flips(addresses, self.num_images, self.seed)
        if isinstance(images, list):
            images = random_resized_crops(images, settings.random_resized_crop or 1.0, rng, self.img_size)
            settings = replace(settings, random_resized_crop=0.0)
        mix_until = 1.0 if settings.mix_until is None else settings.mix_until
        mixing = bool(settings.mixup or settings.cutmix) and fraction < mix_until
        grouped = device.type == "cpu" and not self.compile
        parameters = draw_parameters(images.shape, settings, rng, flips, mixing, grouped).to(device)
        padding = settings.crop_padding or 0
        if self.compile and "_augment" not in vars(self):
            self.normalize(images[:1])  # which moves mean and deviation to the device: no part of the graph
        return self._augment(images, labels, parameters, self.normalize, self.num_classes, padding)


def _copy_code(function: Callable[..., Result]) -> Callable[..., Result]:
    """Copy a function with its code, by which torch.compile counts the variants: it runs the ninth one uncompiled."""
    original = cast(FunctionType, function)
    copy = FunctionType(
        original.__code__.replace(), original.__globals__, None, original.__defaults__, original.__closure__
    )
    return functools.update_wrapper(copy, original)


@runtime_checkable
class EpochOrder(Protocol):
    """Order of the images of an epoch, with its state for a checkpoint: a sampler, or the loader of a stream."""

    epoch: int

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration gives."""
        ...

    def start_at(self, batch: int, stopped: Mapping[str, int]) -> None:
        """Set the first batch of the next iteration, and the state of the run that was stopped before it."""
        ...

    def state_dict(self) -> dict[str, int]:
        """State for a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed."""
        ...


class TrainingLoader(DeviceLoader):
    """Augmented, normalised training batches in a new order each epoch; a run stopped within an epoch resumes there.

    The Trainer that trains on it sets the epoch. In a plain loop, before, after or without a Trainer's run, each
    iteration is the next epoch from its first batch on, or the epoch that ``set_epoch`` sets.

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
        run, epoch = self.progress, self.sampler.epoch
        trainer_trains = run.trains_on(self)
        first, stopped = (run.batches_consumed, run.loader_state) if trainer_trains else (0, {})
        self.sampler.start_at(first, stopped)
        for number, batch in enumerate(self.batches.on(self.device)):
            if trainer_trains:
                yield self.transform(batch, run, run.step, run.fraction)
                continue
            if number == 0:  # the order of this epoch is drawn by now
                self.sampler.set_epoch(epoch + 1)
            yield self.transform(batch, run, epoch * len(self) + number, 0.0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which decides on order and augmentation."""
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """State for a checkpoint, which Lightning asks for."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed."""
        self.sampler.load_state_dict(state)
