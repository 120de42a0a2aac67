"""Any data set by name, for Lightning."""

import itertools
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from vit_attn.data.augment import NOT_GIVEN, Augment, alternating, augment_batch, mix
from vit_attn.data.card import KEY, Card, card_of
from vit_attn.data.coins import Answer
from vit_attn.data.draws import Draws, to_device
from vit_attn.data.memory import (
    EpochShuffle,
    Images,
    Loader,
    Pick,
    Picks,
    Resident,
    ResumableLoader,
    ShuffledBatches,
    choose_loader,
)
from vit_attn.data.sources import ROOT_VARIABLE, Split, find_source
from vit_attn.errors import UserError


@dataclass(frozen=True)
class Probe:
    """The validation images that callbacks look at, always the same ones."""

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    answers: tuple[Answer, ...] | None
    """Where the answer stands, for data sets that know it."""


class ImageData(L.LightningDataModule):
    """A data set by name, held in memory, gathered and augmented on the device of the training.

    Args:
        dataset: ``coins``, which needs no files, or ``cifar10``.
        root: Folder of the data sets' files; by default the variable ``VIT_ATTN_DATA``, else ``data``.
        download: Whether missing files may be downloaded.
        batch_size: Images a step on each device.
        num_workers: Processes that gather training batches where ``loader`` is ``workers``.
        augment: What happens to training images. What is not given is as the data set stands it: crop and flip for
            ``cifar10``, nothing for ``coins``.
        seed: Seed of shuffles and augmentation. The validation split is the same for every seed.
        loader: Where a batch is put together: ``memory``, on the device of the training, where all images are kept;
            ``workers``, on the host; ``auto``, on the device if the images fit ``memory_budget_gb``.
        memory_budget_gb: Memory on the device, in GB, that the decoded images may take for ``loader: auto``.

    Raises:
        UserError: If there is no such data set, or if its files are missing or damaged.
    """

    def __init__(  # noqa: PLR0913  one argument a setting
        self,
        dataset: str = "cifar10",
        root: str | None = None,
        download: bool = True,
        batch_size: int = 128,
        num_workers: int = 0,
        augment: Augment = NOT_GIVEN,
        seed: int = 0,
        loader: Loader = "auto",
        memory_budget_gb: float = 4.0,
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        if memory_budget_gb < 0:
            raise UserError(f"memory_budget_gb must be at least 0, got {memory_budget_gb}")
        self.dataset, self.source = dataset, find_source(dataset)
        self.root = Path(root or os.environ.get(ROOT_VARIABLE) or "data")
        self.download, self.batch_size, self.num_workers, self.seed = download, batch_size, num_workers, seed
        self.augment = augment.over(self.source.augment)
        self.loader, self.memory_budget_gb = loader, memory_budget_gb
        self.splits: dict[str, Split] = {}
        self._resident: dict[tuple[str, torch.device], Resident] = {}
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.source.mean, self.source.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by index."""
        return self.source.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.source.class_names)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.source.img_size

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return len(self.source.mean)

    @property
    def class_weights(self) -> list[float] | None:
        """Weight of each class in the loss, where ``balance`` asks for it."""
        return None

    @property
    def card(self) -> Card:
        """What a checkpoint keeps of the data."""
        return Card(self.dataset, self.class_names, self.img_size, self.source.mean, self.source.std)

    def state_dict(self) -> dict[str, Any]:
        """The card, for the checkpoint."""
        return self.card.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes than these.

        Raises:
            UserError: If so.
        """
        stored = card_of({KEY: state_dict})
        if stored is not None and stored.class_names != self.class_names:
            raise UserError(
                f"the checkpoint is of other classes than {self.dataset}: {_first_difference(stored, self.card)}"
            )

    def prepare_data(self) -> None:
        """Download what is missing, once a node; the splits stay in memory for ``setup``."""
        self.splits = self.source.load(self.root, self.download)
        count = len(self.splits["train"].images)
        training = self.trainer is None or self.trainer.state.fn == "fit"
        ranks, _ = self._ranks()
        if training and self.batch_size > count // ranks:
            each = f"the {count} training images" if ranks == 1 else f"each device's share of {count} training images"
            raise UserError(f"batch_size={self.batch_size} is larger than {each}")

    def setup(self, stage: str) -> None:
        """Load the splits where ``prepare_data`` ran in another process."""
        self.splits = self.splits or self.source.load(self.root, False)

    def probe(self, count: int) -> Probe:
        """``count`` images of the validation split, drawn once: every call and every run gets the same."""
        split = self.splits["val"]
        indices = torch.randperm(len(split.images), generator=torch.Generator().manual_seed(0))[:count]
        answers = tuple(split.answer(i) for i in indices.tolist()) if split.answer else None
        return Probe(split.images[indices], split.labels[indices], answers)

    def normalize(self, images: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """What the network takes: pixels of mean 0 and deviation 1 by channel, over the training images."""
        if self._scale.device != images.device:  # once, since a copy from unpinned memory waits for the device
            self._scale, self._shift = self._scale.to(images.device), self._shift.to(images.device)
        return images.float().mul_(self._scale).add_(self._shift)

    @cached_property
    def in_memory(self) -> bool:
        """Whether all images are kept on the device.

        Raises:
            UserError: If they are not and ``augment`` needs it.
        """
        chosen = choose_loader(self.loader, (split.images for split in self.splits.values()), self.memory_budget_gb)
        if self.augment.flip_alternating and not chosen:
            raise UserError("augment.flip_alternating needs all images on the device: set loader to memory")
        return chosen

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches, of addresses where the images are on the device; they are augmented there."""
        split, (world_size, rank) = self.splits["train"], self._ranks()
        ranks = {"num_replicas": world_size, "rank": rank, "seed": self.seed * 1_000_003}
        # lightning leaves a distributed sampler alone, and replaces any other and a batch sampler
        if self.in_memory:
            picks = Picks(len(split.images), "train", self.batch_size)
            batches = ShuffledBatches(split.images, self.batch_size, self._taken, **ranks)
            return ResumableLoader(picks, batch_size=None, sampler=batches)
        dataset = Images(split.images, split.labels)
        return DataLoader(
            dataset,
            sampler=EpochShuffle(dataset, **ranks),
            batch_size=self.batch_size,
            drop_last=True,
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        """The held-out images in their order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        """The test images, which nothing but ``test`` and ``predict`` reads, in their order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader:
        """The test images in their order."""
        return self._in_order("test")

    def _in_order(self, name: str) -> DataLoader:
        split = self.splits[name]
        dataset = Picks(len(split.images), name) if self.in_memory else Images(split.images, split.labels)
        return DataLoader(dataset, batch_size=self.batch_size, collate_fn=as_it_is)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Gather a batch that came as addresses from the images on the device."""
        if not isinstance(batch, Pick):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        split, place = self.splits[batch.split], (batch.split, device)
        if place not in self._resident:
            self._resident[place] = Resident(split.images, split.labels, device)
        images, labels = self._resident[place].gather(batch.addresses)
        if batch.split == "train" and self.augment.flip_alternating:
            mirrored = alternating(batch.addresses, len(split.images), self.seed)
            return images, labels, to_device(mirrored.numpy(), device)
        return images, labels

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment training images on their device; normalise all."""
        images, labels, *mirrored = batch
        if not (self.trainer and self.trainer.training):
            return self.normalize(images), labels
        on, (world_size, rank) = self.augment, self._ranks()
        draws = Draws((self.seed, _step(self.trainer)), len(images), rank, world_size, images.device)
        images = augment_batch(images, on, self.normalize, draws, *mirrored)
        if (on.mixup or on.cutmix) and _progress(self.trainer) < (1.0 if on.mix_until is None else on.mix_until):
            return mix(images, labels, self.num_classes, on.mixup or 0.0, on.cutmix or 0.0, draws)
        return images, labels

    def _taken(self) -> int:
        """Batches of this epoch that were taken already, where a run is resumed within an epoch."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


def _first_difference(stored: Card, here: Card) -> str:
    pairs = itertools.zip_longest(stored.class_names, here.class_names, fillvalue="none")
    number, (theirs, ours) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {number} is {theirs!r} there and {ours!r} here"


def _step(trainer: L.Trainer) -> int:
    """Batches that training has taken so far, whatever the optimiser did with them."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def _progress(trainer: L.Trainer) -> float:
    """Share of the training that is done."""
    return trainer.global_step / trainer.estimated_stepping_batches


def as_it_is(batch: Any) -> Any:
    """The batch; the data set has collated it already."""
    return batch
