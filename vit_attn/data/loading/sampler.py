"""Samplers of whole batches, sharded by rank.

A sampler yields the *addresses* of a batch, ``epoch * images + index`` for each image. What is random in an image of an
epoch depends on its address, so it is the same in any number of workers and in a resumed run.
"""

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, cast

import torch
from jaxtyping import Int64
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError

Addresses = Int64[Tensor, " B"]
RandomOrder = Callable[[torch.Generator], Int64[Tensor, " images"]]
FixedOrder = Callable[[int], Int64[Tensor, " images"]]


class ShuffledBatches(DistributedSampler):
    """Batches of an epoch in an order drawn from (seed, epoch).

    Each step takes the next images of the order for all ranks together, and rank r gets the r-th block of them. So two
    ranks see in each step what one rank with twice the batch size sees, and an epoch has as many steps.

    Args:
        images: The split, or anything of its length.
        batch_size: Images per batch on each rank; an incomplete batch at the end of an epoch is dropped.
        order: Draws the indices of an epoch with a generator; by default a permutation.
        **options: ``num_replicas``, ``rank`` and ``seed`` of ``DistributedSampler``.
    """

    def __init__(
        self,
        images: Sized,
        batch_size: int,
        order: RandomOrder | None = None,
        **options: Any,
    ) -> None:
        super().__init__(cast(Dataset, images), **options)
        self.batch_size, self.first_batch = batch_size, 0
        self.order = order or (lambda generator: torch.randperm(len(images), generator=generator))
        self.loaded_state: dict[str, int] = {}

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(cast(Sized, self.dataset)) // (self.batch_size * self.num_replicas)

    def __iter__(self) -> Iterator[Addresses]:
        """Addresses of each batch that is left of the epoch."""
        yield from self.addresses(self.epoch)[self.first_batch :]

    def start_at(self, batch: int, stopped: Mapping[str, int]) -> None:
        """Set the first batch of the next iteration.

        Args:
            batch: The batch in the epoch, from 0; if it is not 0, a run is resumed within the epoch.
            stopped: State of the run that is resumed, unless :meth:`load_state_dict` got it.
        """
        self.first_batch, now = batch, self.state_dict()["step_images"]
        before = (self.loaded_state or stopped).get("step_images", now)
        if batch and before != now:
            rank_zero_warn(
                f"the run was stopped within an epoch with {before} images per step, and resumes with {now}: some "
                "images of this epoch come twice or not at all"
            )

    def addresses(self, epoch: int) -> Int64[Tensor, "batches B"]:
        """Addresses of all batches of an epoch on this rank."""
        order = self.order(torch.Generator().manual_seed(self.seed + epoch))
        steps = order[: len(self) * self.num_replicas * self.batch_size].view(-1, self.num_replicas, self.batch_size)
        return steps[:, self.rank] + epoch * len(cast(Sized, self.dataset))

    def state_dict(self) -> dict[str, int]:
        """Images per step on all ranks; Lightning keeps the epoch and the number of batches."""
        return {"step_images": self.batch_size * self.num_replicas}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Keep the state of the run that is resumed, to compare with."""
        self.loaded_state = dict(state)


class FixedBatches(ShuffledBatches):
    """The same batches in every epoch, in an order that is the same in every run, for ``overfit_batches``."""

    def __init__(self, images: Sized, batch_size: int, **options: Any) -> None:
        super().__init__(images, batch_size, lambda _: lasting_order(len(images)), **options)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: all epochs are alike."""


class EvaluationBatches(DistributedSampler):
    """Batches of all images of a split, each once, whatever the number of ranks.

    All ranks together take the next images of the order. Every rank has the same number of batches, and none of them is
    empty: a collective call per batch, such as agreeing to stop, relies on that. (Lightning's own sampler repeats some
    images instead, which then count twice.)

    Args:
        images: The split, or anything of its length.
        batch_size: Largest number of images per batch on each rank; of several ranks at least 2.
        name: Name of the split for messages.
        order: Gives the order of that many images.
        **options: ``num_replicas`` and ``rank`` of ``DistributedSampler``.

    Raises:
        UserError: If there are fewer images than ranks.
    """

    def __init__(
        self, images: Sized, batch_size: int, name: str, order: FixedOrder = lasting_order, **options: Any
    ) -> None:
        super().__init__(cast(Dataset, images), shuffle=False, **options)
        self.count, self.order = len(images), order
        self.batch_size = batch_size if self.num_replicas == 1 else max(2, batch_size)
        if self.count < self.num_replicas:
            raise UserError(too_few_images(f"the {name} split", self.count, self.num_replicas))

    def __len__(self) -> int:
        """Batches on each rank."""
        return -(-self.count // (self.num_replicas * self.batch_size))

    def __iter__(self) -> Iterator[Addresses]:
        """Indices of each batch: full ones and a smaller last one on one rank, equal ones on several."""
        order = self.order(self.count)
        if self.num_replicas == 1:
            yield from order.split(self.batch_size)
            return
        for step in order.tensor_split(len(self)):
            yield step.tensor_split(self.num_replicas)[self.rank]


def too_few_images(split: str, images: int, ranks: int) -> str:
    """Message for a split that leaves a rank without an image to evaluate."""
    return f"{split} has {images} images to evaluate, fewer than the {ranks} devices: set trainer.devices"
