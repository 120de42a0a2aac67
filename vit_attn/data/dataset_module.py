"""Data module of a data set by name without its loaders: the files, classes, image size, normalisation, model card."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vit_attn.checkpoints.class_names import class_name
from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard, card_from_state
from vit_attn.data.class_order import needs_renumbering
from vit_attn.data.datasets.fingerprint import fingerprint_of
from vit_attn.data.datasets.registry import DATASETS, DatasetInfo, Split
from vit_attn.data.loading.cache import Probe, SplitCache
from vit_attn.data.loading.device_dataset import DeviceSplits
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.normalization import Statistics, find_statistics
from vit_attn.data.summary import log_splits


class DatasetModule(L.LightningDataModule):
    """A data set by name: its files, and what a network and its checkpoints keep of it.

    Args:
        dataset: Name of the data set.
        cache: Its splits.
        normalize: Source of the mean and standard deviation, as :class:`~vit_attn.data.module.ImageData` takes it.
        download: Whether missing files may be downloaded.
        own_root: Whether the root is the user's own.

    Raises:
        UserError: If no statistics are known by the name.
    """

    def __init__(self, dataset: str, cache: SplitCache, normalize: str | None, download: bool, own_root: bool) -> None:
        super().__init__()
        self.dataset, self.cache, self.download, self._own_root = dataset, cache, download, own_root
        self.normalized_by = normalize
        """Source of mean and standard deviation that the user chose."""
        self._device_splits = DeviceSplits(cache)
        self._statistics = self._known_statistics(normalize)
        self._scaling: tuple[Tensor, Tensor] | None = None
        self._fingerprint: dict[str, Any] | None = None

    def _known_statistics(self, name: str | None) -> Statistics | None:
        """Statistics by name, or those of the data set; None if they are to be computed."""
        known = find_statistics(name, DATASETS) if name else None
        if known is None and self.source.mean and self.source.std:
            known = Statistics(self.source.mean, self.source.std)
        return known and known.for_channels(self.in_chans)

    def normalize_as(self, card: ModelCard) -> None:
        """Normalise as a network was trained, whose model card this is; loaders of before keep their normalisation."""
        self._statistics = Statistics(card.mean, card.std).for_channels(self.in_chans)
        self._scaling = None

    @property
    def progress(self) -> RunProgress:
        """Progress of the Trainer's run."""
        return RunProgress(self.trainer)

    @property
    def root(self) -> Path:
        """Folder of the files, or the file of ``csv``."""
        return self.cache.root

    @property
    def source(self) -> DatasetInfo:
        """Description of the data set."""
        return self.cache.source

    @property
    def splits(self) -> dict[str, Split]:
        """The splits ``train``, ``val`` and ``test`` that are loaded."""
        return self.cache.splits

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user on how the files were understood, a phrase each; complete once they are loaded."""
        return self.source.remarks

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by index; of some data sets they are known once the files are loaded."""
        loaded = self.splits.get("train")
        return (loaded.class_names if loaded else None) or self.source.class_names

    @property
    def title(self) -> str:
        """Name of the data set, with its root if that is the user's own."""
        return f"{self.dataset} {self.root}" if self.dataset not in DATASETS and self._own_root else self.dataset

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.source.class_names)

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.cache.size

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.cache.channels

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images by channel; computed once if they are not known."""
        if self._statistics is None:
            self._statistics = self.cache.statistics()
        return self._statistics

    @property
    def own_parts(self) -> dict[str, str]:
        """Module of the user's own that registers the data set, by what it gives; none for other data sets."""
        module = self.source.module
        return {f"data set {self.dataset}": module} if module else {}

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
            bits=self.cache.bits or None,
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
        other_order = self._is_reordered(names)
        self._load(self.download)
        if other_order:
            self.cache.renumber(names)
            self._fingerprint = None
        if stored.bits is not None:
            self.cache.read_by(stored.bits)
        self._device_splits.clear()
        self._statistics, self._scaling = Statistics(stored.mean, stored.std), None

    def _is_reordered(self, stored: tuple[str, ...]) -> bool:
        """Tell if a checkpoint has the same classes in another order, which evaluation adopts."""
        fitting = self.trainer is not None and self.progress.is_fitting
        return needs_renumbering(self.dataset, stored, tuple(map(class_name, self.class_names)), fitting)

    def _load(self, download: bool) -> None:
        """Open the files and log what was found, unless that was done."""
        if self.splits:
            return
        self.cache.load(download)
        log_splits(self.title, self.class_names, self.cache.found, self.remarks)

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

    def probe(self, count: int) -> Probe:
        """``count`` validation images, the same ones at every call and in every run."""
        return self.cache.probe(count)

    def training_images(self, count: int) -> UInt8[Tensor, "B C height width"]:
        """At most ``count`` training images without augmentation, the same ones at every call and in every run."""
        return self.cache.training_images(count)

    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the data: data set, numbers of images, classes, and hashes of the files' names.

        Names are relative to the root, so that a data set may be moved. Of evaluation images the sizes of the files
        count too. No image is read.
        """
        self._load(self.download)
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(self.cache.found, self.dataset, self.class_names)
        return self._fingerprint
