"""Splits of a data set, loaded once, and decoded once if they fit in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from vit_attn.data.datasets.coverage import SPLIT_TITLES, check_classes
from vit_attn.data.datasets.image_list import TensorImageList
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.bit_depth import NONE_SEEN, Bits
from vit_attn.data.images.decoding import decode, without_corrupt
from vit_attn.data.images.used_bits import find_bits
from vit_attn.data.loading.full_size_images import decode_full_size, decode_full_size_stream
from vit_attn.data.loading.memory import LoaderKind, fits_in_memory, full_size_bytes
from vit_attn.data.normalization import SAMPLE, Statistics, measure
from vit_attn.data.transforms.host import min_side
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.data_protocol import GroundTruth
from vit_attn.errors import UserError


@dataclass(frozen=True)
class Probe:
    """Validation images for callbacks, the same ones in every run."""

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    ground_truth: tuple[GroundTruth, ...] | None
    """Patches that are known to matter, for data sets that have them."""


@dataclass(frozen=True)
class ReadingSettings:
    """Settings of how images are read.

    Args:
        size: Height and width in pixels that the network takes.
        channels: 3 for colour, 1 for grey.
        loader: Where batches are made.
        budget_gb: Memory, in GB, for the decoded images with ``loader: auto``.
        skip_corrupt: Whether corrupt files are left out.
        bits: Bits that grey pictures of more than 8 use; by default they are found in the training images.
    """

    size: tuple[int, int]
    channels: int
    loader: LoaderKind = "auto"
    budget_gb: float = 4.0
    skip_corrupt: bool = False
    bits: Bits | None = None


class SplitCache:
    """The splits ``train``, ``val`` and ``test`` of a data set.

    Args:
        source: The data set.
        root: Folder of its files.
        settings: How images are read.
        min_area: Smallest fraction of an image's area in the random crops of training, if there are any.
    """

    def __init__(
        self, source: DatasetInfo, root: Path, settings: ReadingSettings, min_area: float | None = None
    ) -> None:
        self.source, self.root, self.settings, self.min_area = source, root, settings, min_area
        self.size, self.channels, self.skip_corrupt = settings.size, settings.channels, settings.skip_corrupt
        self.splits: dict[str, Split] = {}
        self.found: dict[str, Split] = {}
        self.tested_on = "test"
        self.bits: int | None = settings.bits
        self._checked: set[str] = set()

    def load(self, download: bool) -> None:
        """Open the files, unless that was done.

        Raises:
            UserError: If they are missing, corrupt or incomplete.
        """
        if self.splits:
            return
        found = self.source.load(self.root, download)
        remarks = check_classes(found, self.source.class_names)
        if self.bits is None:
            self.bits = used = find_bits(found["train"])
            if used != NONE_SEEN:
                remarks.append(f"white of pictures of 16 bits is {2**used - 1:,}: they use {used} bits")
        if any(split.ground_truth and self._sized(split) is not split for split in found.values()):
            remarks.append("ground-truth patches are known in images of the original size and channels only")
        self.source = replace(self.source, remarks=[*self.source.remarks, *remarks])
        self._reset(found)

    def _reset(self, found: Mapping[str, Split]) -> None:
        """Start from splits of which nothing is decoded."""
        self.found = {name: split.of_bits(self.bits) for name, split in found.items()}
        self.splits, self._checked = {name: self._sized(split) for name, split in self.found.items()}, set()
        if "test" not in self.splits:
            self.splits["test"], self.tested_on = self.splits["val"], "val"

    def read_by(self, bits: int) -> None:
        """Read grey pictures of more than 8 bits with the bit depth that a network was trained with."""
        if bits == self.bits:
            return
        self.bits, seen = bits, self.bits != NONE_SEEN
        if seen:
            rank_zero_info(f"but read by {bits or 16} bits, as by the network's training")
            self._reset(self.found)
        else:  # of what is decoded, nothing is of more than 8 bits
            self.splits = {name: split.of_bits(bits) for name, split in self.splits.items()}

    def renumber(self, class_names: tuple[str, ...]) -> None:
        """Index the classes in the order of a network that was trained on them."""
        indices = torch.tensor([class_names.index(name) for name in self.source.class_names])
        for splits in (self.found, self.splits):
            splits |= {name: split.with_classes(indices, class_names) for name, split in splits.items()}
        self.source = replace(self.source, class_names=class_names)

    def _sized(self, split: Split) -> Split:
        """The split, to be decoded again if its images have another size or number of channels than needed."""
        if split.images is None or split.images.shape[1:] == (self.channels, *self.size):
            return split
        return Split(None, split.labels, pictures=TensorImageList(split.images), class_names=split.class_names)

    @cached_property
    def in_memory(self) -> bool:
        """Tell if all images are kept on the device; decided before any image is decoded."""
        loader, budget = self.settings.loader, self.settings.budget_gb
        distinct = {name: split for name, split in self.splits.items() if (name, self.tested_on) != ("test", "val")}
        count, each = sum(map(len, distinct.values())), self.channels * self.size[0] * self.size[1]
        train = self.splits["train"]
        measured = loader == "auto" or (loader == "memory" and train.stream is None)
        if not (measured and self.min_area) or train.images is not None:
            return fits_in_memory(loader, count, each, budget)
        train_bytes = full_size_bytes(train, self.channels, self._min_side, budget * 1e9)
        mean = (train_bytes + (count - len(train)) * each) / count
        if loader == "memory" and mean * count > budget * 1e9:
            rank_zero_info(
                f"loader: memory takes about {mean * count / 1e9:.1f} GB, since augment.random_resized_crop needs "
                f"full-size images; above memory_budget_gb={budget:g}, loader=workers is recommended"
            )
        return fits_in_memory(loader, count, mean, budget, ", full-size for augment.random_resized_crop,")

    @property
    def _min_side(self) -> int:
        """Shorter side, in pixels, of a full-size image that has enough detail for the smallest crop."""
        return min_side(self.size, self.min_area)

    @torch.inference_mode(False)  # threads fill what is made here, and it outlives the evaluation
    def ready(self, name: str) -> Split:
        """The split as its loader takes it: decoded if it is kept in memory, and without corrupt files.

        With ``skip_corrupt``, every process of the run first reads all images that its workers will read, which takes
        about an epoch of reading. Otherwise a worker finds a corrupt file when it comes to it.

        Raises:
            UserError: If a file is corrupt and is not to be left out, or if a class has no image left.
        """
        split, title = self.splits[name], SPLIT_TITLES[name]
        full_size = name == "train" and bool(self.min_area)
        if split.stream is not None:
            if self.in_memory:
                self._replace(name, self._read_stream(split.stream, title, full_size))
        elif split.images is None and self.in_memory:
            options = (split, title, self.size, self.channels)
            if full_size:
                self._replace(name, decode_full_size(*options, self._min_side, self.skip_corrupt))
            else:
                self._replace(name, decode(*options, self.skip_corrupt))
        elif split.images is None and self.skip_corrupt and name not in self._checked:
            self._replace(name, without_corrupt(split, title, self.channels))
        self._checked.add(name)
        return self.splits[name]

    def _read_stream(self, stream: Stream, title: str, full_size: bool) -> Split:
        """Decode a stream; images that are missing were corrupt, which webdataset's reader does not report."""
        if full_size:
            split = decode_full_size_stream(stream, self.channels, self.size, self.skip_corrupt)
        else:
            split = Split(*stream.first(stream.count, self.size, self.channels, self.skip_corrupt))
        if missing := stream.count - len(split):
            lost = f"{missing} of the {stream.count:,} {title} images of {stream.name}"
            if not self.skip_corrupt:
                raise UserError(f"{lost} cannot be read; skip with --data.skip_corrupt=true")
            rank_zero_info(f"skip_corrupt: left out {lost}")
        return split

    def _replace(self, name: str, split: Split) -> None:
        if gone := set(self.splits[name].labels.tolist()) - set(split.labels.tolist()):
            names = split.class_names or self.source.class_names
            raise UserError(f"none of the {SPLIT_TITLES[name]} images of class {names[min(gone)]!r} can be read")
        self.splits[name] = split

    @torch.inference_mode(False)
    def some(self, name: str, indices: Iterable[int]) -> Split:
        """Decode some images of a split; of a stream, as many from its beginning."""
        split, indices = self.ready(name) if self.skip_corrupt else self.splits[name], list(indices)
        if split.stream is not None:
            return Split(*split.stream.first(len(indices), self.size, self.channels, self.skip_corrupt))
        chosen = split.take(torch.tensor(indices, dtype=torch.long).numpy())
        if chosen.images is not None:
            return chosen
        return decode(chosen, SPLIT_TITLES[name], self.size, self.channels, self.skip_corrupt)

    def probe(self, count: int) -> Probe:
        """``count`` validation images, the same ones at every call and in every run."""
        split = self.ready("val") if self.skip_corrupt else self.splits["val"]
        indices = lasting_order(len(split))[:count]
        chosen = self.some("val", indices.tolist())
        known = chosen.ground_truth
        truth = tuple(known(i) for i in range(len(chosen))) if known else None
        return Probe(chosen.decoded(), chosen.labels, truth)

    def training_images(self, count: int) -> UInt8[Tensor, "B C height width"]:
        """At most ``count`` training images without augmentation, the same ones at every call and in every run."""
        split = self.ready("train") if self.in_memory or self.skip_corrupt else self.splits["train"]
        return self.some("train", lasting_order(len(split))[:count].tolist()).decoded()

    def statistics(self) -> Statistics:
        """Mean and standard deviation of the training images, or of some thousand of them; they are logged."""
        images = self.training_images(min(SAMPLE, max(64, 50_000_000 // (self.size[0] * self.size[1]))))
        found, split, count = measure(images), self.splits["train"], len(images)
        first = "the first " if split.stream is not None else ""
        of = f"the {count:,}" if count == len(split) else f"{first}{count:,} of the {len(split):,}"
        mean, std = (", ".join(f"{value:.4f}" for value in each) for each in (found.mean, found.std))
        rank_zero_info(f"normalize: mean {mean} and standard deviation {std} of {of} training images")
        return found
