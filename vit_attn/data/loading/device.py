"""A whole split in memory as one tensor: a batch is one gather, and its address says which images it holds.

On the device, the loader hands out :class:`IndexBatch`, addresses alone, and :class:`DeviceDataset` gathers them there.
Loader workers read the images of the same addresses in the same order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.transforms.rng import lasting_order, to_device
from vit_attn.errors import UserError

Loader = Literal["auto", "memory", "workers"]
Batch = tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]
Order = Callable[[torch.Generator], Int64[Tensor, " images"]]
Numbering = Callable[[int], Int64[Tensor, " images"]]


class IndexBatch(NamedTuple):
    """A batch before it is gathered.

    Args:
        addresses: ``epoch * images + index`` of each image, on the host.
        split: Name of the split.
    """

    addresses: Int64[Tensor, " B"]
    split: str


class DecodedBatch(NamedTuple):
    """A batch that a worker read.

    Args:
        images: Pixels, uint8.
        labels: Class indices.
        damaged: What could not be read, and why; black images are there in its place.
    """

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    damaged: tuple[str, ...]

    def whole(self, skip_damaged: bool) -> Batch:
        """Pixels and labels.

        Args:
            skip_damaged: Whether what was damaged before the run has been left out, for the message.

        Raises:
            UserError: If an image could not be read.
        """
        if self.damaged:
            anew = "begin anew or set loader to memory to leave it out"
            mend = anew if skip_damaged else "skip with --data.skip_damaged=true"
            raise UserError(f"{self.damaged[0]}; mend or remove, or {mend}")
        return self.images, self.labels


class IndexDataset(Dataset[IndexBatch]):
    """The images of a split as addresses, for a loader that gives whole batches of them.

    Args:
        count: Images of the split.
        split: Its name.
        batch_size: Images of an item; what is left at the end is dropped.
        order: Gives the indices of that many images in the order in which they are numbered.
    """

    def __init__(self, count: int, split: str, batch_size: int = 1, order: Numbering = lasting_order) -> None:
        self.count, self.split, self.batch_size, self.order = count, split, batch_size, order

    def __len__(self) -> int:
        """Number of items."""
        return self.count // self.batch_size

    def __getitem__(self, index: int | Tensor) -> IndexBatch:
        """The addresses in a tensor, or an item by its number, for which lightning asks with ``overfit_batches``."""
        return IndexBatch(batch_at(index, self.batch_size, self.order(self.count)), self.split)

    def __getitems__(self, numbers: Sequence[int]) -> IndexBatch:
        """A batch of images by their numbers, which a ``DataLoader`` asks for by this name."""
        return IndexBatch(self.order(self.count)[torch.tensor(numbers)], self.split)


def batch_at(index: int | Tensor, batch_size: int, order: Int64[Tensor, " images"]) -> Int64[Tensor, " B"]:
    """Addresses of a batch: those that a sampler gave, or the images of a numbered batch.

    Args:
        index: Addresses, or a number of a batch.
        batch_size: Images of a batch.
        order: Index of each image in the order in which batches are numbered.
    """
    return order[index * batch_size :][:batch_size] if isinstance(index, int) else index


class ShuffledBatches(DistributedSampler):
    """Addresses of the images in an order drawn from (seed, epoch), a batch at a time.

    Each step takes the next images of the order for all ranks together, and rank r has the r-th block of them. So two
    ranks see in each step what one with twice the batch sees, and an epoch has as many batches.

    Args:
        images: What has a length, that of the split.
        batch_size: Images of a batch on each rank; what is left at the end of an epoch is dropped.
        taken: Tells how many batches of this epoch were taken before, by the run that is resumed.
        order: Draws the images of an epoch with a generator of its own; by default each once.
        **ranks: ``num_replicas``, ``rank`` and ``seed``, as ``DistributedSampler`` takes them.
    """

    def __init__(
        self,
        images: Sized,
        batch_size: int,
        taken: Callable[[], int] = lambda: 0,
        order: Order | None = None,
        **ranks: Any,
    ) -> None:
        super().__init__(cast(Dataset, images), **ranks)
        self.batch_size, self.taken = batch_size, taken
        self.order = order or (lambda generator: torch.randperm(len(images), generator=generator))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(cast(Sized, self.dataset)) // (self.batch_size * self.num_replicas)

    def __iter__(self) -> Iterator[Int64[Tensor, " B"]]:
        """Addresses, a batch at a time."""
        # a generator, since lightning makes the iterator before it restores the epoch that it resumes
        yield from self.addresses(self.epoch)[self.taken() :]

    def addresses(self, epoch: int) -> Int64[Tensor, "batches B"]:
        """All batches of an epoch on this rank."""
        order = self.order(torch.Generator().manual_seed(self.seed + epoch))
        dealt = order[: len(self) * self.num_replicas * self.batch_size].view(-1, self.num_replicas, self.batch_size)
        return dealt[:, self.rank] + epoch * len(cast(Sized, self.dataset))


class ResumableLoader(DataLoader):
    """A loader whose sampler finds its place by itself; lightning asks a resumable loader for a state.

    It is made as any loader, since lightning makes it anew from its attributes for ``overfit_batches``.
    """

    place = RunProgress(None)
    """Tells, whenever it is asked, how much of the epoch the run that is resumed had taken."""
    dealt: Mapping[str, int] = MappingProxyType({})

    def __iter__(self) -> Any:
        """Batches; workers begin with the first that is asked for, when lightning has restored the epoch."""
        now = self.state_dict().get("step_images")
        then = (self.dealt or self.place.dealt).get("step_images", now)
        if self.place.taken and then != now:
            rank_zero_warn(
                f"the run was stopped within an epoch with {then} images a step, and goes on with {now}: of this "
                "epoch, some images come twice or not at all"
            )
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Images of a step on all devices; lightning keeps the epoch and the batches that were taken."""
        batches = self.sampler
        known = isinstance(batches, ShuffledBatches)
        return {"step_images": batches.batch_size * batches.num_replicas} if known else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed."""
        self.dealt = dict(state)


class DeviceDataset:
    """A split on a device, moved there once.

    Args:
        images: Pixels, uint8.
        labels: Class indices.
        device: Where they go.
    """

    def __init__(
        self, images: UInt8[Tensor, "B C height width"], labels: Int64[Tensor, " B"], device: torch.device | str
    ) -> None:
        self.images, self.labels = images.to(device), labels.to(device)

    def gather(self, addresses: Int64[Tensor, " B"]) -> Batch:
        """The images and labels of a batch; its ``addresses`` are on the host."""
        indices = to_device(addresses.numpy(), self.images.device) % len(self.images)
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)


def choose_loader(loader: Loader, count: int, image_bytes: float, budget_gb: float, note: str = "") -> bool:
    """Whether all images go to the device, which is said in one line where it was left open.

    Args:
        loader: What was asked for.
        count: Images of all splits.
        image_bytes: Bytes of a decoded image, in the mean.
        budget_gb: What they may take for ``auto``.
        note: Why an image takes more than the network's size.
    """
    if loader != "auto":
        return loader == "memory"
    needed = count * image_bytes / 1e9
    fits = needed <= budget_gb
    rank_zero_info(
        f"loader: {'memory' if fits else 'workers'}, since the {count:,} decoded images are {needed:.2f} GB{note} and "
        f"memory_budget_gb={budget_gb:g}"
    )
    return fits
