"""Pictures that are read and augmented one by one in the workers of a ``DataLoader``."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vit_attn.data.decoding import skipped_line
from vit_attn.data.splits import Split
from vit_attn.data.transforms import Augmented, Centre
from vit_attn.errors import UserError

TRIES = 100
"""Images that are tried in place of one that cannot be read."""


class Read(NamedTuple):
    """A batch that a worker read.

    Args:
        images: Pixels, uint8.
        labels: Class indices.
        damaged: What could not be read, and why; other images are there in its place.
    """

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    damaged: tuple[str, ...]


class Images(Dataset[Read]):
    """The images of a split, read and transformed one by one, addressed by ``epoch * images + index``.

    The address carries the epoch, so that a random transform draws the same parameters for an image of an epoch in
    any number of workers, and in a resumed run. A worker never raises over a damaged file: its traceback would be all
    that the user sees. It takes another image, says what was wrong, and leaves it to the process of the training to
    end the run or go on.

    Args:
        split: Its images, decoded or not.
        transform: From a picture to pixels; its torch randomness comes from (seed, address).
        channels: 3 for colour, 1 for grey.
        seed: Seed of the transform.
        batch_size: Images of an item; what is left at the end is dropped.
    """

    def __init__(
        self, split: Split, transform: Centre | Augmented, channels: int = 3, seed: int = 0, batch_size: int = 1
    ):
        self.labels, self.pictures, self.transform = split.labels, split.to_read(), transform
        self.channels, self.seed, self.batch_size = channels, seed, batch_size

    def __len__(self) -> int:
        """Number of items."""
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int | Tensor) -> Read:
        """The images of the addresses in a tensor, or an item by its number."""
        if isinstance(index, int):
            index = torch.arange(index * self.batch_size, (index + 1) * self.batch_size)
        return self.__getitems__(index.tolist())

    def __getitems__(self, addresses: Sequence[int]) -> Read:
        """A batch, which a ``DataLoader`` asks for by this name."""
        damaged: list[str] = []
        read = [self._read(address, damaged) for address in addresses]
        indices = torch.tensor([index for _, index in read])
        return Read(torch.stack([image for image, _ in read]), self.labels[indices], tuple(damaged))

    def _read(self, address: int, damaged: list[str]) -> tuple[Tensor, int]:
        """The image of an address and its index, or the next one of the data set that can be read."""
        count = len(self.labels)
        for index in ((address + step) % count for step in range(min(TRIES, count))):
            try:
                picture = self.pictures.read(index, self.channels, self.transform.least)
            except UserError as error:
                damaged.append(str(error))
                continue
            return self._seeded(picture, address), index
        return self._seeded(Image.new("RGB" if self.channels == 3 else "L", (1, 1)), address), address % count

    def _seeded(self, picture: Image.Image, address: int) -> Tensor:
        before = torch.get_rng_state()
        try:  # the CPU's generator alone: torch.manual_seed would reseed the GPU's too, and for good
            torch.default_generator.manual_seed(hash((self.seed, address)))  # of integers: the same in every process
            return self.transform(picture)
        finally:
            torch.set_rng_state(before)


class Damage:
    """What workers could not read, as the process of the training meets it.

    Args:
        skip: Whether the run goes on.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.found: dict[str, None] = {}  # in order, each once

    def met(self, damaged: Sequence[str]) -> None:
        """Take note of files that another image stands for.

        Raises:
            UserError: If the run does not go on, or if there are too many in a row.
        """
        if not damaged:
            return
        if not self.skip:
            raise UserError(f"{damaged[0]}; mend or remove, or skip with --data.skip_damaged=true")
        if len(damaged) >= TRIES:
            raise UserError(f"{len(damaged)} images of a batch cannot be read; the first: {damaged[0]}")
        if not self.found:
            rank_zero_info(f"skip_damaged: another image stands for what cannot be read, first: {damaged[0]}")
        self.found |= dict.fromkeys(damaged)

    def sum_up(self) -> None:
        """Say how many there were."""
        if self.found:
            rank_zero_info(skipped_line(list(self.found), "training"))
            self.found = {}
