"""The splits of a data set, loaded once, and decoded once where they fit the memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from vit_attn.data.datasets.coverage import check_classes
from vit_attn.data.datasets.splits import DatasetInfo, Split, TensorImageList
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.images.bit_depth import NONE_SEEN, Bits
from vit_attn.data.images.decoding import decode, without_damaged
from vit_attn.data.images.used_bits import find_bits
from vit_attn.data.loading.device import Loader, choose_loader
from vit_attn.data.loading.whole_images import decode_whole, read_whole_stream, whole_bytes
from vit_attn.data.normalization import SAMPLE, Statistics, measure
from vit_attn.data.transforms.host import least_side
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.data_protocol import GroundTruth
from vit_attn.errors import UserError


@dataclass(frozen=True)
class Probe:
    """The validation images that callbacks look at, always the same ones."""

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    ground_truth: tuple[GroundTruth, ...] | None
    """Patches that are known to matter, for data sets that have them."""


class SplitCache:
    """Splits by name: ``train``, ``val`` and ``test``.

    Args:
        source: The data set.
        root: Folder of its files.
        size: Height and width in pixels that the images get.
        channels: 3 for colour, 1 for grey.
        loader: Where batches are put together.
        budget_gb: Memory, in GB, that the decoded images may take for ``loader: auto``.
        skip_damaged: Whether pictures that cannot be read are left out.
        bits: Those that grey pictures of more than 8 use; by default they are found in the training pictures.
    """

    def __init__(
        self,
        source: DatasetInfo,
        root: Path,
        size: tuple[int, int],
        channels: int,
        loader: Loader,
        budget_gb: float,
        skip_damaged: bool,
        bits: Bits | None = None,
    ) -> None:
        self.source, self.root, self.size, self.channels = source, root, size, channels
        self.loader, self.budget_gb, self.skip_damaged = loader, budget_gb, skip_damaged
        self.parts: float | None = None
        """Least share of a picture of which training takes random parts, if it does."""
        self.splits: dict[str, Split] = {}
        self.found: dict[str, Split] = {}
        self.tested_on = "test"
        self.bits: int | None = bits
        self._checked: set[str] = set()

    def load(self, download: bool) -> None:
        """Open the files, unless that was done.

        Raises:
            UserError: If they are missing, damaged or not whole.
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
            remarks.append(
                "where the answer stands is known of images of their own size and channels, so it is not marked"
            )
        self.source = replace(self.source, remarks=[*self.source.remarks, *remarks])
        self._take(found)

    def _take(self, found: Mapping[str, Split]) -> None:
        """Begin with splits of which nothing is decoded."""
        self.found = {name: split.of_bits(self.bits) for name, split in found.items()}
        self.splits, self._checked = {name: self._sized(split) for name, split in self.found.items()}, set()
        if "test" not in self.splits:
            self.splits["test"], self.tested_on = self.splits["val"], "val"

    def read_by(self, bits: int) -> None:
        """Read grey pictures of more than 8 bits by the depth with which a network was trained."""
        if bits == self.bits:
            return
        self.bits, seen = bits, self.bits != NONE_SEEN
        if seen:
            rank_zero_info(f"but read by {bits or 16} bits, as by the network's training")
            self._take(self.found)
        else:  # of what is decoded, nothing is of more than 8 bits
            self.splits = {name: split.of_bits(bits) for name, split in self.splits.items()}

    def renumber(self, class_names: tuple[str, ...]) -> None:
        """Number the classes as a network does that was trained on them in another order."""
        numbers = torch.tensor([class_names.index(name) for name in self.source.class_names])
        for splits in (self.found, self.splits):
            splits |= {name: split.numbered(numbers, class_names) for name, split in splits.items()}
        self.source = replace(self.source, class_names=class_names)

    def _sized(self, split: Split) -> Split:
        """The split with its pictures to be read again, where they are of another size or colour than wanted."""
        if split.images is None or split.images.shape[1:] == (self.channels, *self.size):
            return split
        return Split(None, split.labels, pictures=TensorImageList(split.images), class_names=split.class_names)

    @cached_property
    def in_memory(self) -> bool:
        """Whether all images are kept on the device; decided before any picture is read."""
        own = {name: split for name, split in self.splits.items() if (name, self.tested_on) != ("test", "val")}
        count, each = sum(map(len, own.values())), self.channels * self.size[0] * self.size[1]
        train = self.splits["train"]
        measured = self.loader == "auto" or (self.loader == "memory" and train.stream is None)
        if not (measured and self.parts) or train.images is not None:
            return choose_loader(self.loader, count, each, self.budget_gb)
        whole = whole_bytes(train, self.channels, self._least, self.budget_gb * 1e9)
        mean = (whole + (count - len(train)) * each) / count
        if self.loader == "memory" and mean * count > self.budget_gb * 1e9:
            rank_zero_info(
                f"loader: memory takes about {mean * count / 1e9:.1f} GB, since augment.random_resized_crop takes "
                f"parts of whole pictures; for more than memory_budget_gb={self.budget_gb:g}, workers are meant"
            )
        return choose_loader(self.loader, count, mean, self.budget_gb, ", whole for augment.random_resized_crop,")

    @property
    def _least(self) -> int:
        """Shorter side of a picture, in pixels, that is enough for the smallest part of it."""
        return least_side(self.size, self.parts)

    @torch.inference_mode(False)  # threads fill what is made here, and it outlives the measuring
    def ready(self, name: str) -> Split:
        """The split as its loader takes it: decoded if it goes to the memory, and without what cannot be read.

        With ``skip_damaged``, every image that workers will read is read once before, by each process of the run: that
        takes about an epoch of reading, not of training. Else a worker finds what is damaged when it comes to it.

        Raises:
            UserError: If a picture cannot be read and is not to be left out, or if none is left of some class.
        """
        split, called = self.splits[name], _called(name)
        whole = name == "train" and bool(self.parts)
        if split.stream is not None:
            if self.in_memory:
                self._replace(name, self._read_stream(split.stream, called, whole))
        elif split.images is None and self.in_memory:
            options = (split, called, self.size, self.channels)
            if whole:
                self._replace(name, decode_whole(*options, self._least, self.skip_damaged))
            else:
                self._replace(name, decode(*options, self.skip_damaged))
        elif split.images is None and self.skip_damaged and name not in self._checked:
            self._replace(name, without_damaged(split, called, self.channels))
        self._checked.add(name)
        return self.splits[name]

    def _read_stream(self, stream: Stream, called: str, whole: bool) -> Split:
        """All images of a stream; what is missing was damaged, which webdataset's reader does not tell."""
        if whole:
            split = read_whole_stream(stream, self.channels, self.size, self.skip_damaged)
        else:
            split = Split(*stream.first(stream.count, self.size, self.channels, self.skip_damaged))
        if missing := stream.count - len(split):
            lost = f"{missing} of the {stream.count:,} {called} images of {stream.name}"
            if not self.skip_damaged:
                raise UserError(f"{lost} cannot be read; skip with --data.skip_damaged=true")
            rank_zero_info(f"skip_damaged: left out {lost}")
        return split

    def _replace(self, name: str, whole: Split) -> None:
        if gone := set(self.splits[name].labels.tolist()) - set(whole.labels.tolist()):
            names = whole.class_names or self.source.class_names
            raise UserError(f"none of the {_called(name)} images of class {names[min(gone)]!r} can be read")
        self.splits[name] = whole

    @torch.inference_mode(False)
    def some(self, name: str, indices: Iterable[int]) -> Split:
        """Some images of a split, decoded; of a stream as many from its beginning."""
        split, indices = self.ready(name) if self.skip_damaged else self.splits[name], list(indices)
        if split.stream is not None:
            return Split(*split.stream.first(len(indices), self.size, self.channels, self.skip_damaged))
        chosen = split.take(torch.tensor(list(indices), dtype=torch.long).numpy())
        if chosen.images is not None:
            return chosen
        return decode(chosen, _called(name), self.size, self.channels, self.skip_damaged)

    def probe(self, count: int) -> Probe:
        """Images of the validation split, drawn once: every call and every run gets the same."""
        split = self.ready("val") if self.skip_damaged else self.splits["val"]
        indices = lasting_order(len(split))[:count]
        chosen = self.some("val", indices.tolist())
        known = chosen.ground_truth
        truth = tuple(known(i) for i in range(len(chosen))) if known else None
        return Probe(chosen.decoded(), chosen.labels, truth)

    def statistics(self) -> Statistics:
        """Mean and deviation of the training images, or of some thousand of them, which is said in one line."""
        split = self.ready("train") if self.in_memory or self.skip_damaged else self.splits["train"]
        count = min(len(split), SAMPLE, max(64, 50_000_000 // (self.size[0] * self.size[1])))
        indices = lasting_order(len(split))[:count]
        found = measure(self.some("train", indices.tolist()).decoded())
        first = "the first " if split.stream is not None else ""
        of = f"the {count:,}" if count == len(split) else f"{first}{count:,} of the {len(split):,}"
        rank_zero_info(
            f"normalize: mean {_short(found.mean)} and deviation {_short(found.std)} of {of} training images"
        )
        return found


def _called(name: str) -> str:
    return {"train": "training", "val": "validation"}.get(name, name)


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
