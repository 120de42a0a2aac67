"""Images that the workers of a ``DataLoader`` read and augment one by one."""

from typing import NamedTuple

import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vit_attn.data.datasets.splits import Split
from vit_attn.data.transforms.host import CentreCrop, HostAugment
from vit_attn.data.transforms.rng import seeded
from vit_attn.errors import UserError


class DecodedBatch(NamedTuple):
    """A batch that a worker read.

    Args:
        images: Pixels.
        labels: Class indices.
        errors: Which files could not be read, and why; black images stand for them.
    """

    images: UInt8[Tensor, "B C height width"]
    labels: Int64[Tensor, " B"]
    errors: tuple[str, ...]

    def intact(self, skip_corrupt: bool) -> tuple[UInt8[Tensor, "B C height width"], Int64[Tensor, " B"]]:
        """Images and labels of a batch without a corrupt file.

        Args:
            skip_corrupt: Whether corrupt files were left out before the run, for the message.

        Raises:
            UserError: If a file could not be read.
        """
        if self.errors:
            again = "begin anew or set loader to memory to leave it out"
            remedy = again if skip_corrupt else "skip with --data.skip_corrupt=true"
            raise UserError(f"{self.errors[0]}; repair or remove it, or {remedy}")
        return self.images, self.labels


class DecodingDataset(Dataset[DecodedBatch]):
    """Whole batches of a split, each image read and transformed by itself.

    An index is a tensor of addresses, as the samplers yield them. The random numbers of a transform depend on
    (seed, address), so an image of an epoch is the same in any number of workers, and in a resumed run. A corrupt file
    raises nothing in a worker, where its traceback would be all that the user sees: the batch carries the error to the
    process of the training.

    Args:
        split: Images, decoded or not.
        transform: From a picture to pixels.
        channels: 3 for colour, 1 for grey.
        seed: Seed of the transform.
    """

    def __init__(self, split: Split, transform: CentreCrop | HostAugment, channels: int = 3, seed: int = 0) -> None:
        self.labels, self.pictures, self.transform = split.labels, split.to_read(), transform
        self.channels, self.seed = channels, seed

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: Int64[Tensor, " B"]) -> DecodedBatch:
        """The batch of some addresses."""
        errors: list[str] = []
        images = torch.stack([self._read(address, errors) for address in index.tolist()])
        return DecodedBatch(images, self.labels[index % len(self.labels)], tuple(errors))

    def _read(self, address: int, errors: list[str]) -> Tensor:
        try:
            picture = self.pictures.read(address % len(self.labels), self.channels, self.transform.min_side)
        except UserError as error:
            errors.append(str(error))
            picture = Image.new("RGB" if self.channels == 3 else "L", (1, 1))
        with seeded(self.seed, address):
            return self.transform(picture)
