"""Data module of any data set by name, for Lightning and for plain PyTorch loops."""

import os
from pathlib import Path
from typing import Literal

from jaxtyping import Int64
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from vit_attn.data.checks import batch_that_fits, check_minimum, height_and_width
from vit_attn.data.dataset_module import DatasetModule
from vit_attn.data.datasets.duplicates import log_duplicates
from vit_attn.data.datasets.fingerprint import batch_names
from vit_attn.data.datasets.held_out import TrainSplit, choose_fraction, choose_train_split
from vit_attn.data.datasets.registry import ROOT_VARIABLE, find_dataset
from vit_attn.data.images.bit_depth import Bits
from vit_attn.data.loading.balance import describe_imbalance, inverse_frequencies
from vit_attn.data.loading.cache import ReadingSettings, SplitCache
from vit_attn.data.loading.device import DeviceLoader
from vit_attn.data.loading.limits import Limit, limit_of
from vit_attn.data.loading.loaders import Balance, Device, Loaders, LoaderSettings
from vit_attn.data.loading.memory import LoaderKind
from vit_attn.data.summary import log_limit
from vit_attn.data.transforms.augment import NOT_GIVEN, AugmentLike, as_augment, takes_dictionary
from vit_attn.data.transforms.rng import file_order
from vit_attn.errors import UserError

DEFAULT_SIZE = (224, 224)
"""Height and width in pixels for data sets whose images have different sizes."""


class ImageData(DatasetModule):
    """A data set by name, whose loaders yield augmented, normalised batches on the training device.

    That is the Trainer's device. Without a Trainer it is the CPU, or the one that a loader's ``device`` names.

    Args:
        dataset: ``coins``, which needs no files; ``cifar10`` or another of torchvision's data sets; ``folder``, with
            the images of each class in a sub-folder; ``csv``, a table with the columns path, label and, optionally,
            split; or one of timm's: ``hfds/NAME``, ``hfids/NAME``, ``wds/…``, ``tfds/NAME``, ``torch/NAME``.
        root: Folder of the data sets' files, by default the variable ``VIT_ATTN_DATA``, else ``data``; for ``folder``
            the folder itself, for ``csv`` the file.
        columns: Names of the columns of ``csv``, as ``path=file,label=class``; common names are recognised.
        download: Whether missing files may be downloaded.
        batch_size: Images per step on each device; at most the training images.
        num_workers: Processes that read images with ``loader: workers``; by default the number of cores.
        augment: Augmentation of training images; in Python also as a dictionary, ``{"mixup": 0.8}``. What is not given
            is the data set's default, such as crop and flip for ``cifar10``, and none for ``coins``.
        seed: Seed of shuffling and augmentation. The validation split is the same for every seed.
        loader: Where batches are made: ``memory``, on the training device, which keeps all images; ``workers``, in
            processes that read the files in every epoch; ``auto``, on the device if the images fit
            ``memory_budget_gb``.
        memory_budget_gb: Memory on the device, in GB, for the decoded images with ``loader: auto``.
        img_size: Side of the images in pixels, or height and width as ``[160,224]``: images are resized to cover it,
            and the centre is cropped. By default the data set's, and 224 if its images have different sizes.
        channels: 3 for colour and 1 for grey; by default the data set's.
        normalize: Source of the mean and standard deviation: a data set's name, ``imagenet``, ``inception``, ``clip``,
            one of timm's networks, or the path of a checkpoint. By default the data set's, measured on its training
            images if they are not known.
        balance: Remedy for class imbalance: ``loss``, class weights; ``sampling``, all classes are drawn equally often.
        skip_corrupt: Whether corrupt image files are left out and counted, instead of ending the run. Workers' files
            are all read once beforehand. Workers always leave them out of ``wds/…``, uncounted, and never of
            ``hfids/…`` and ``tfds/…``.
        bits: Bit depth that grey images of 16 bits use, whose largest value is white; by default the smallest that
            holds the values of the training images, or of a thousand of them. An image with larger values is refused.
        train_split: Training images: ``train``, or ``train+val`` for all of them, with those that are held out for
            validation. Validation then measures training images: for a final run, with
            ``trainer.limit_val_batches: 0``.
        held_out: Fraction of the images that is held out for validation, and again for the test where the data set has
            no test images; by default 0.1. For data sets without validation images of their own.
        compile_augment: Whether ``torch.compile`` makes one graph of the augmentation on the training device. Leave it
            off on the CPU; its gain on a GPU is not measured yet.

    Raises:
        UserError: If there is no such data set, or if its files are missing or corrupt.
    """

    @takes_dictionary
    def __init__(  # noqa: PLR0913  one argument a setting
        self,
        dataset: str = "cifar10",
        root: str | None = None,
        download: bool = True,
        batch_size: int = 128,
        num_workers: int | None = None,
        augment: AugmentLike = NOT_GIVEN,
        seed: int = 0,
        loader: LoaderKind = "auto",
        memory_budget_gb: float = 4.0,
        img_size: int | list[int] | None = None,
        channels: Literal[1, 3] | None = None,
        normalize: str | None = None,
        balance: Balance = "none",
        skip_corrupt: bool = False,
        columns: str | None = None,
        bits: Bits | None = None,
        train_split: TrainSplit = "train",
        held_out: float | None = None,
        compile_augment: bool = False,
    ) -> None:
        check_minimum(1, batch_size=batch_size)
        check_minimum(0, num_workers=num_workers, seed=seed, memory_budget_gb=memory_budget_gb)
        found = find_dataset(dataset, Path(root) if root else None, download, columns)
        source = choose_train_split(choose_fraction(found, held_out), train_split)
        augment = as_augment(augment).over(source.augment)
        size = height_and_width(img_size) or source.img_size or DEFAULT_SIZE
        colours = channels or source.in_chans
        reading = ReadingSettings(size, colours, loader, memory_budget_gb, skip_corrupt, bits)
        folder = Path(root or os.environ.get(ROOT_VARIABLE) or "data")
        cache = SplitCache(source, folder, reading, augment.random_resized_crop)
        super().__init__(dataset, cache, normalize, download, own_root=root is not None)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.augment, self.balance, self.compile_augment = augment, balance, compile_augment
        chosen = {"dataset": dataset, "root": root and str(root), "columns": columns, "held_out": held_out}
        chosen |= {"train_split": train_split, "skip_corrupt": skip_corrupt, "download": download}
        self.evaluation_settings = {name: value for name, value in chosen.items() if value is not None}
        """Arguments that choose the images, kept in checkpoints for evaluation on the same."""

    @property
    def class_weights(self) -> list[float] | None:
        """Weight of each class in the loss with ``balance: loss``: its inverse frequency, with mean 1."""
        if self.balance != "loss":
            return None
        return inverse_frequencies(self._labels(), self.num_classes)

    def _labels(self) -> Int64[Tensor, " images"]:
        self._load(self.download)
        split = self.splits["train"]
        if not len(split.labels) and self.cache.in_memory:
            split = self.cache.ready("train")
        if not len(split.labels):
            raise UserError(f"balance needs labels, which {self.dataset} gives image by image: set loader to memory")
        return split.labels

    def prepare_data(self) -> None:
        """Download missing files, once per node; the splits stay in memory for ``setup``."""
        self._load(self.download)

    def _fit_batch_size(self) -> None:
        """Make the batch as small as the training images, if there are fewer."""
        if self.progress.is_fitting:
            images, ranks = len(self.splits["train"]), self.progress.world_size
            fitting = batch_that_fits(self.batch_size, images, ranks)
            if fitting < self.batch_size:
                rank_zero_info(
                    f"batch_size: {fitting}, since there are {images} training images, not {self.batch_size}"
                )
            self.batch_size = fitting

    def setup(self, stage: str) -> None:
        """Load the splits if ``prepare_data`` ran in another process, and decode those that are kept in memory."""
        self._load(False)
        self.cache.min_area = self.augment.random_resized_crop if stage == "fit" else None
        log_limit(self, stage)
        if stage == "fit":
            self._fit_batch_size()
            log_duplicates(self.cache.found)
            self._loaders.check()  # before any image is decoded
        for name in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            self.cache.ready(name)
        if stage in ("test", "predict") and self.cache.tested_on == "val":
            rank_zero_info(f"{self.dataset} has no test images: the validation images are used instead")
        if stage != "fit":
            return
        _ = self.statistics  # computed and logged before the first batch
        if (self.augment.mixup or self.augment.cutmix) and self.batch_size % 2 and self.progress.world_size > 1:
            rank_zero_info(
                f"augment: mixup and cutmix pair the images of a device, and batch_size={self.batch_size} is odd: "
                "one device with the batch of all would pair others"
            )
        if self.balance != "none":
            rank_zero_info(f"balance: {self.balance}; {describe_imbalance(self._labels(), self.class_names)}")

    def limit(self, stage: str) -> Limit | None:
        """Limit of a stage that uses only some images of its split.

        Args:
            stage: ``val``, ``test`` or ``predict``.
        """
        split = self.splits["val" if stage == "val" else "test"]
        return limit_of(self.trainer, stage, len(split), self.batch_size) if self.trainer else None

    def batch_names(self, epoch: int, batch: int, limit: int = 8) -> list[str]:
        """Names of the images in a training batch on this rank: their files, else their numbers; none for a stream.

        Args:
            epoch: The epoch, from 0.
            batch: The batch in the epoch, from 0.
            limit: Most images that are named; the number of the others follows them.
        """
        split = self.cache.ready("train")
        if split.stream is not None:
            return [f"batch {batch + 1} of epoch {epoch + 1} of {self.dataset}"]
        sampler = self._loaders.training_sampler(split, self.progress)
        names = batch_names(split, self.dataset, sampler, epoch, batch)
        return names if len(names) <= limit else [*names[:limit], f"and {len(names) - limit} more"]

    @property
    def _loaders(self) -> Loaders:
        """Builder of loaders; of the attributes' present values, since Lightning's tuner sets ``batch_size``."""
        settings = LoaderSettings(
            self.augment, self.batch_size, self.seed, self.balance, self.num_workers, self.compile_augment
        )
        return Loaders(self.cache, settings, self.normalize, self._device_splits)

    def _setup_once(self, stage: str) -> None:
        """Set up for a plain loop, if neither a Trainer nor the user did."""
        if not self.splits:
            self._load(self.download)
            self.setup(stage)

    def train_dataloader(self, device: Device = None) -> DeviceLoader:
        """Shuffled, augmented, normalised training batches."""
        self._setup_once("fit")
        self.cache.ready("train")
        self._fit_batch_size()
        return self._loaders.training(self.progress, device)

    def val_dataloader(self, device: Device = None) -> DeviceLoader:
        """Normalised validation batches, in a random order that is the same in every run."""
        self._setup_once("fit")
        return self._loaders.evaluation("val", self.progress, device)

    def test_dataloader(self, device: Device = None) -> DeviceLoader:
        """Normalised test batches, in a random order that is the same in every run."""
        self._setup_once("test")
        return self._loaders.evaluation("test", self.progress, device)

    def predict_dataloader(self, device: Device = None) -> DeviceLoader:
        """Normalised test batches in the order of the files, by which predictions are numbered."""
        self._setup_once("predict")
        return self._loaders.evaluation("test", self.progress, device, file_order)
