"""Any data set by name, for Lightning."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import RandAugment

from vit_attn.data.augment import NOT_GIVEN, Augment, Draws, crop_and_flip, erase, mix
from vit_attn.data.coins import Answer
from vit_attn.data.memory import EpochShuffle, Images
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
    """A data set by name, held in memory, augmented on the device of the training.

    Args:
        dataset: ``coins``, which needs no files, or ``cifar10``.
        root: Folder of the data sets' files; by default the variable ``VIT_ATTN_DATA``, else ``data``.
        download: Whether missing files may be downloaded.
        batch_size: Images a step on each device.
        num_workers: Processes that prepare training batches; worth it for ``augment.rand_augment`` only.
        augment: What happens to training images. What is not given is as the data set stands it: crop and flip for
            ``cifar10``, nothing for ``coins``.
        seed: Seed of shuffles and augmentation. The validation split is the same for every seed.

    Raises:
        UserError: If there is no such data set, or if its files are missing or damaged.
    """

    def __init__(
        self,
        dataset: str = "cifar10",
        root: str | None = None,
        download: bool = True,
        batch_size: int = 128,
        num_workers: int = 0,
        augment: Augment = NOT_GIVEN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        self.source = find_source(dataset)
        self.root = Path(root or os.environ.get(ROOT_VARIABLE) or "data")
        self.download, self.batch_size, self.num_workers, self.seed = download, batch_size, num_workers, seed
        self.augment = augment.over(self.source.augment)
        self.splits: dict[str, Split] = {}
        mean, std = torch.tensor(self.source.mean), torch.tensor(self.source.std)
        self.mean, self.std = (255 * mean).view(-1, 1, 1), (255 * std).view(-1, 1, 1)

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

    def prepare_data(self) -> None:
        """Download what is missing, once a node; the splits stay in memory for ``setup``."""
        self.splits = self.source.load(self.root, self.download)
        count = len(self.splits["train"].images)
        training = self.trainer is None or self.trainer.state.fn == "fit"
        if training and self.batch_size > count:
            raise UserError(f"batch_size={self.batch_size} is larger than the {count} training images")

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
        return (images - self.mean.to(images.device)) / self.std.to(images.device)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of uint8 images; they are augmented after they have reached the device."""
        split, magnitude = self.splits["train"], self.augment.rand_augment
        dataset = Images(
            split.images, split.labels, RandAugment(magnitude=magnitude) if magnitude else None, seed=self.seed
        )
        world_size, rank = self._ranks()
        order = EpochShuffle(dataset, num_replicas=world_size, rank=rank, seed=self.seed * 1_000_003)
        return DataLoader(
            dataset,
            sampler=order,  # lightning leaves a distributed sampler alone, and replaces a batch sampler
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
        return DataLoader(Images(split.images, split.labels), batch_size=self.batch_size, collate_fn=as_it_is)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment training images on their device; normalise all."""
        images, labels = batch
        if not (self.trainer and self.trainer.training):
            return self.normalize(images), labels
        on: dict[str, Any] = asdict(self.augment)
        world_size, rank = self._ranks()
        draws = Draws((self.seed, _step(self.trainer)), len(images), rank, world_size, images.device)
        if on["crop_padding"] or on["flip"]:
            images = crop_and_flip(images, on["crop_padding"], on["flip"], draws)
        images = self.normalize(images)
        if on["erase"]:
            images = erase(images, on["erase"], draws)
        if (on["mixup"] or on["cutmix"]) and _progress(self.trainer) < on["mix_until"]:
            return mix(images, labels, self.num_classes, on["mixup"], on["cutmix"], draws)
        return images, labels

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


def _step(trainer: L.Trainer) -> int:
    """Batches that training has taken so far, whatever the optimiser did with them."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def _progress(trainer: L.Trainer) -> float:
    """Share of the training that is done."""
    return trainer.global_step / trainer.estimated_stepping_batches


def as_it_is(batch: Any) -> tuple[Tensor, Tensor]:
    """The batch; :class:`Images` has collated it already."""
    return batch
