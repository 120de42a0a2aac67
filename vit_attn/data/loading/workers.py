"""Pictures that are read and augmented one by one in the workers of a ``DataLoader``."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.device import DecodedBatch, Numbering, batch_at
from vit_attn.data.transforms.host import Augmented, Centre
from vit_attn.data.transforms.rng import lasting_order, seeded
from vit_attn.errors import UserError


class DecodingDataset(Dataset[DecodedBatch]):
    """The images of a split, read and transformed one by one, addressed by ``epoch * images + index``.

    The address carries the epoch, so that a random transform draws the same parameters for an image of an epoch in
    any number of workers, and in a resumed run. A worker never raises over a damaged file: its traceback would be all
    that the user sees. It says what was wrong, and leaves it to the process of the training to end the run.

    Args:
        split: Its images, decoded or not.
        transform: From a picture to pixels; what is random in it comes from (seed, address).
        channels: 3 for colour, 1 for grey.
        seed: Seed of the transform.
        batch_size: Images of an item; what is left at the end is dropped.
        order: Gives the indices of that many images in the order in which they are numbered.
    """

    def __init__(
        self,
        split: Split,
        transform: Centre | Augmented,
        channels: int = 3,
        seed: int = 0,
        batch_size: int = 1,
        order: Numbering = lasting_order,
    ) -> None:
        self.labels, self.pictures, self.transform = split.labels, split.to_read(), transform
        self.channels, self.seed, self.batch_size, self.order = channels, seed, batch_size, order

    def __len__(self) -> int:
        """Number of items."""
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int | Tensor) -> DecodedBatch:
        """The images of the addresses in a tensor, or an item by its number."""
        return self._batch(batch_at(index, self.batch_size, self.order(len(self.labels))))

    def __getitems__(self, numbers: Sequence[int]) -> DecodedBatch:
        """A batch of images by their numbers, which a ``DataLoader`` asks for by this name."""
        return self._batch(self.order(len(self.labels))[torch.tensor(numbers)])

    def _batch(self, addresses: Int64[Tensor, " B"]) -> DecodedBatch:
        damaged: list[str] = []
        images = torch.stack([self._read(address, damaged) for address in addresses.tolist()])
        return DecodedBatch(images, self.labels[addresses % len(self.labels)], tuple(damaged))

    def _read(self, address: int, damaged: list[str]) -> Tensor:
        try:
            picture = self.pictures.read(address % len(self.labels), self.channels, self.transform.least)
        except UserError as error:
            damaged.append(str(error))
            picture = Image.new("RGB" if self.channels == 3 else "L", (1, 1))
        with seeded(self.seed, address):
            return self.transform(picture)
