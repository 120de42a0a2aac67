"""Any data set by name, for Lightning."""

import itertools
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from jaxtyping import Float, Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from vit_attn.checkpoints.class_names import class_name
from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard, card_from_state
from vit_attn.data.datasets.duplicates import say_duplicates
from vit_attn.data.datasets.fingerprint import fingerprint_of, names_of_batch
from vit_attn.data.datasets.registry import DATASETS, OWN, ROOT_VARIABLE, DatasetInfo, Split, find_dataset
from vit_attn.data.images.bit_depth import Bits
from vit_attn.data.loading.balance import imbalance, inverse_frequencies
from vit_attn.data.loading.cache import Probe, SplitCache
from vit_attn.data.loading.device import DecodedBatch, DeviceDataset, IndexBatch, Loader
from vit_attn.data.loading.limits import Limit, limit_of
from vit_attn.data.loading.loaders import Balance, Loaders
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.loading.whole_images import DeviceImageList, random_parts, resident
from vit_attn.data.normalization import Statistics, find_statistics
from vit_attn.data.summary import say_limit, say_what_was_found
from vit_attn.data.transforms.augment import NOT_GIVEN, Augment, alternating, augment_batch, mix
from vit_attn.data.transforms.host import on_device
from vit_attn.data.transforms.rng import BatchRNG, file_order, to_device
from vit_attn.errors import UserError

UNLIKE = (224, 224)
"""Height and width of images that have none in common, in pixels."""


class ImageData(L.LightningDataModule):
    """A data set by name: in memory, gathered and augmented on the device of the training, or read by workers.

    Args:
        dataset: ``coins``, which needs no files; ``cifar10`` or another set of torchvision's; ``folder``, with the
            images of each class in a sub-folder; ``csv``, a table with the columns path, label and, if wanted, split;
            or one of timm's: ``hfds/NAME``, ``hfids/NAME``, ``wds/…``, ``tfds/NAME``, ``torch/NAME``.
        root: Folder of the data sets' files, by default the variable ``VIT_ATTN_DATA``, else ``data``; the folder
            itself for ``folder``, the file for ``csv``.
        columns: Which columns of the table of ``csv`` are which, as ``path=file,label=class``; common names are known.
        download: Whether missing files may be downloaded.
        batch_size: Images a step on each device.
        num_workers: Processes that read images where ``loader`` is ``workers``; by default as many as there are cores.
        augment: What happens to training images. What is not given is as the data set stands it, such as crop and flip
            for ``cifar10``, and nothing for ``coins``.
        seed: Seed of shuffles and augmentation. The validation split is the same for every seed.
        loader: Where a batch is put together: ``memory``, on the device of the training, where all images are kept;
            ``workers``, on the host, from files that are read anew; ``auto``, on the device if the images fit
            ``memory_budget_gb``.
        memory_budget_gb: Memory on the device, in GB, that the decoded images may take for ``loader: auto``.
        img_size: Side of the images in pixels: their shorter side is resized to it, and the centre is kept. By default
            that of the data set, and 224 where it has images of unlike sizes.
        channels: 3 for colour and 1 for grey; by default as the data set has it.
        normalize: Whose mean and deviation are taken off: a data set's name, ``imagenet``, ``inception``, ``clip``, a
            network of timm's, or the path of a checkpoint. By default what is known of the data set, else what its
            training images have.
        balance: What is done where classes have unlike numbers of images: ``loss``, weights of the classes;
            ``sampling``, each class is drawn as often.
        skip_damaged: Whether files that cannot be read as images are left out and counted, instead of ending the run.
            Where workers read, all are read once before. Of ``wds/…`` workers always leave them out, uncounted, and
            of ``hfids/…`` and ``tfds/…`` never.
        bits: How many bits grey pictures of 16 use, which makes the largest value of as many white; by default what
            holds the values of the training pictures, or of a thousand of them. Another that goes beyond is refused.

    Raises:
        UserError: If there is no such data set, or if its files are missing or damaged.
    """

    def __init__(  # noqa: PLR0913  one argument a setting
        self,
        dataset: str = "cifar10",
        root: str | None = None,
        download: bool = True,
        batch_size: int = 128,
        num_workers: int | None = None,
        augment: Augment = NOT_GIVEN,
        seed: int = 0,
        loader: Loader = "auto",
        memory_budget_gb: float = 4.0,
        img_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        normalize: str | None = None,
        balance: Balance = "none",
        skip_damaged: bool = False,
        columns: str | None = None,
        bits: Bits | None = None,
    ) -> None:
        super().__init__()
        least = {"batch_size": (batch_size, 1), "num_workers": (num_workers, 0), "seed": (seed, 0)}
        least |= {"memory_budget_gb": (memory_budget_gb, 0), "img_size": (img_size, 1)}
        for name, (value, low) in least.items():
            if value is not None and value < low:
                raise UserError(f"{name} must be at least {low}, got {value}")
        self._root_given = root is not None
        self.dataset, self.root = dataset, Path(root or os.environ.get(ROOT_VARIABLE) or "data")
        source = find_dataset(dataset, Path(root) if root else None, download, columns)
        self.download, self.batch_size, self.seed = download, batch_size, seed
        self.augment, self.balance = augment.over(source.augment), balance
        size = (img_size, img_size) if img_size else source.img_size or UNLIKE
        colours = channels or source.in_chans
        self.store = SplitCache(source, self.root, size, colours, loader, memory_budget_gb, skip_damaged, bits)
        self.store.parts = self.augment.random_resized_crop
        self._loaders = Loaders(self.store, self.augment, batch_size, seed, balance, num_workers)
        self._statistics = self._known_statistics(normalize)
        self._scaling: tuple[Tensor, Tensor] | None = None
        self._fingerprint: dict[str, Any] | None = None
        self._resident: dict[tuple[str, torch.device], DeviceDataset | DeviceImageList] = {}

    def _known_statistics(self, name: str | None) -> Statistics | None:
        """Statistics by name, or those of the data set; None if they are to be computed."""
        known = find_statistics(name, DATASETS) if name else None
        if known is None and self.source.mean and self.source.std:
            known = Statistics(self.source.mean, self.source.std)
        return known and known.for_channels(self.in_chans)

    @property
    def place(self) -> RunProgress:
        """Where in the run this is."""
        return RunProgress(self.trainer)

    @property
    def source(self) -> DatasetInfo:
        """The data set."""
        return self.store.source

    @property
    def splits(self) -> dict[str, Split]:
        """What was loaded of ``train``, ``val`` and ``test``."""
        return self.store.splits

    @property
    def remarks(self) -> list[str]:
        """What the user must know of how the files were understood, a phrase each; all of them once they are loaded."""
        return self.source.remarks

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by index; of some data sets only the files tell them."""
        loaded = self.splits.get("train")
        return (loaded.class_names if loaded else None) or self.source.class_names

    @property
    def title(self) -> str:
        """The name of the data set, and where it lies if only its files say what it is."""
        return f"{self.dataset} {self.root}" if self.dataset not in DATASETS and self._root_given else self.dataset

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.source.class_names)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.store.size

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.store.channels

    @property
    def class_weights(self) -> list[float] | None:
        """Weight of each class in the loss, where ``balance`` asks for it: its inverse frequency, 1 in the mean."""
        if self.balance != "loss":
            return None
        return inverse_frequencies(self._labels(), self.num_classes)

    def _labels(self) -> Int64[Tensor, " images"]:
        self._load(self.download)
        split = self.splits["train"]
        if not len(split.labels) and self.store.in_memory:
            split = self.store.ready("train")
        if not len(split.labels):
            raise UserError(f"balance needs labels, which {self.dataset} tells image by image: set loader to memory")
        return split.labels

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images by channel; computed once if they are not known."""
        if self._statistics is None:
            self._statistics = self.store.statistics()
        return self._statistics

    @property
    def card(self) -> ModelCard:
        """Model card without a network: classes, size and normalisation of the images."""
        return ModelCard(
            architecture="",
            model_args={},
            label_names=self.class_names,
            input_size=(self.in_chans, *self.img_size),
            mean=self.statistics.mean,
            std=self.statistics.std,
            dataset=self.dataset,
            bits=self.store.bits or None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Fields of the model card, for the checkpoint."""
        return self.card.data_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes; normalise and number the classes as in its training.

        Args:
            state_dict: What :meth:`state_dict` returned, in this or an earlier version.

        Raises:
            UserError: If the classes differ, or if a field is invalid.
        """
        stored = card_from_state({DATA_KEY: state_dict})
        if stored is None:
            return
        if not self.class_names:  # only the files tell them
            self._load(self.download)
        names = tuple(map(class_name, stored.label_names or ()))
        other_order = self._numbers_otherwise(names)
        self._load(self.download)
        if other_order:
            self.store.renumber(names)
            self._fingerprint = None
        if stored.bits is not None:
            self.store.read_by(stored.bits)
        self._resident.clear()
        self._statistics, self._scaling = Statistics(stored.mean, stored.std), None

    def _numbers_otherwise(self, stored: tuple[str, ...]) -> bool:
        """Whether a checkpoint's classes are in another order, where ours is a convention, which was another once."""
        here = tuple(map(class_name, self.class_names))
        if stored == here:
            return False
        again = "; an order that changed since cannot be resumed: begin anew" if sorted(stored) == sorted(here) else ""
        if not again or self.dataset not in OWN or (self.trainer is not None and self.place.trains):
            difference = _first_difference(stored, here)
            raise UserError(f"the checkpoint is of other classes than {self.dataset}: {difference}{again}")
        return True

    def prepare_data(self) -> None:
        """Download what is missing, once a node; the splits stay in memory for ``setup``."""
        self._load(self.download)
        self._check_batch(self.splits["train"])

    def _load(self, download: bool) -> None:
        """Open the files, unless that was done, and say what was found."""
        if self.splits:
            return
        self.store.load(download)
        say_what_was_found(self.title, self.class_names, self.store.found, self.remarks)

    def _check_batch(self, split: Split) -> None:
        ranks, _ = self.place.ranks
        if self.place.trains and self.batch_size > len(split) // ranks:
            each = f"the {len(split)} training images" if ranks == 1 else f"each device's share of {len(split)} images"
            raise UserError(f"batch_size={self.batch_size} is larger than {each}: set --data.batch_size")

    def setup(self, stage: str) -> None:
        """Load the splits where ``prepare_data`` ran in another process, and read what goes to the memory."""
        self._load(False)
        self.store.parts = self.augment.random_resized_crop if stage == "fit" else None
        say_limit(self, stage)
        if stage == "fit":
            say_duplicates(self.store.found)
            _ = self.in_memory  # refused, if so, before any picture is read
        for name in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            self.store.ready(name)
        if stage in ("test", "predict") and self.store.tested_on == "val":
            rank_zero_info(f"{self.dataset} has no test images: the validation images are taken in their place")
        if stage != "fit":
            return
        _ = self.statistics  # computed, and told, before the first batch
        if (self.augment.mixup or self.augment.cutmix) and self.batch_size % 2 and self.place.ranks[0] > 1:
            rank_zero_info(
                f"augment: mixup and cutmix pair the images of a device, and batch_size={self.batch_size} is odd: "
                "one device with the batch of all would pair others"
            )
        if self.balance != "none":
            rank_zero_info(f"balance: {self.balance}; {imbalance(self._labels(), self.class_names)}")

    def limit(self, stage: str) -> Limit | None:
        """What of its split a stage leaves out, and why.

        Args:
            stage: ``val``, ``test`` or ``predict``.
        """
        split = self.splits["val" if stage == "val" else "test"]
        return limit_of(self.trainer, stage, len(split), self.batch_size) if self.trainer else None

    def probe(self, count: int) -> Probe:
        """``count`` images of the validation split, drawn once: every call and every run gets the same."""
        return self.store.probe(count)

    def batch_names(self, epoch: int, batch: int, limit: int = 8) -> list[str]:
        """The images of a training batch on this rank: their files, else their numbers; of a stream, the batch alone.

        Args:
            epoch: The epoch, from 0.
            batch: The batch in the epoch, from 0.
            limit: Most images that are named; how many more there are is said in their place.
        """
        split = self.store.ready("train")
        if split.stream is not None:
            return [f"batch {batch + 1} of epoch {epoch + 1} of {self.dataset}"]
        batches = self._loaders.batches(split, self.place)
        names = names_of_batch(split, self.dataset, batches, (epoch, batch))
        return names if len(names) <= limit else [*names[:limit], f"and {len(names) - limit} more"]

    def fingerprint(self) -> dict[str, Any]:
        """What tells these images from others: data set, numbers of images, classes, hashes of the files' names.

        The files are named from the root on, so that a data set may be moved; of those that are measured the sizes
        count too. No image is read.
        """
        self._load(self.download)
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.store.found, self.dataset, self.class_names)
        return self._fingerprint

    def normalize(self, images: UInt8[Tensor, "B C height width"]) -> Float[Tensor, "B C height width"]:
        """Normalise pixels to mean 0 and standard deviation 1 by channel, over the training images.

        Args:
            images: Pixels in 0..255.
        """
        if self._scaling is None or self._scaling[0].device != images.device:
            mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.statistics.mean, self.statistics.std))
            # once, since a copy from unpinned memory waits for the device
            self._scaling = (1 / (255 * std)).to(images.device), (-mean / std).to(images.device)
        scale, shift = self._scaling
        return images.float().mul_(scale).add_(shift)

    @cached_property
    def in_memory(self) -> bool:
        """Whether all images are kept on the device.

        Raises:
            UserError: If they are not and ``augment`` needs it.
        """
        if self.augment.flip_alternating and not self.store.in_memory:
            raise UserError("augment.flip_alternating needs all images on the device: set loader to memory")
        return self.store.in_memory

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches: of addresses where the images are on the device, else read and augmented by workers."""
        _ = self.in_memory
        self._check_batch(self.store.ready("train"))
        return self._loaders.training(self.place)

    def val_dataloader(self) -> DataLoader:
        """The held-out images, in a random order that is the same in every run."""
        return self._loaders.once("val", self.place)

    def test_dataloader(self) -> DataLoader:
        """The test images, which nothing but ``test`` and ``predict`` reads, in such an order too."""
        return self._loaders.once("test", self.place)

    def predict_dataloader(self) -> DataLoader:
        """The test images in the order of their files, by which predictions are numbered."""
        return self._loaders.once("test", self.place, file_order)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """End the run over a file that a worker could not read."""
        return batch.whole(self.store.skip_damaged) if isinstance(batch, DecodedBatch) else batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Gather a batch that came as addresses from the images on the device."""
        if not isinstance(batch, IndexBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        split, place = self.splits[batch.split], (batch.split, device)
        if place not in self._resident:
            self._resident[place] = resident(split, device)
        images, labels = self._resident[place].gather(batch.addresses)
        if batch.split == "train" and self.augment.flip_alternating:
            mirrored = alternating(batch.addresses, len(split), self.seed)
            return images, labels, to_device(mirrored.numpy(), device)
        return images, labels

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augment training images on their device; normalise all."""
        images, labels, *mirrored = batch
        if not (self.trainer and self.trainer.training):
            return self.normalize(images), labels
        on, (world_size, rank) = self.augment if self.in_memory else on_device(self.augment), self.place.ranks
        draws = BatchRNG((self.seed, self.place.step), len(labels), rank, world_size, labels.device)
        if isinstance(images, list):  # whole pictures, which have the network's size from here on
            images = random_parts(images, on.random_resized_crop or 1.0, draws, self.img_size)
            on = replace(on, random_resized_crop=0.0)
        images = augment_batch(images, on, self.normalize, draws, *mirrored)
        if (on.mixup or on.cutmix) and self.place.progress < (1.0 if on.mix_until is None else on.mix_until):
            return mix(images, labels, self.num_classes, on.mixup or 0.0, on.cutmix or 0.0, draws)
        return images, labels


def _first_difference(stored: tuple[str, ...], here: tuple[str, ...]) -> str:
    pairs = itertools.zip_longest(stored, here, fillvalue="none")
    number, (theirs, ours) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {number} is {theirs!r} there and {ours!r} here"
