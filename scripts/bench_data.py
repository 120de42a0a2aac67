#!/usr/bin/env python
"""Our input against torchvision's, in turn in one run; random images of CIFAR-10's size.

On the CPU: images a second, cropped, flipped and normalised, from memory on all cores, over torchvision's transforms of
PIL images in a DataLoader of two workers; the same again with RandAugment. On a GPU: training steps of a ViT in bf16 on
gathered and augmented batches, over the same steps on one batch that is already there.

    .venv/bin/python scripts/bench_data.py
    .venv/bin/python scripts/bench_data.py --device cuda --batch-size 1024
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count, islice

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from vit_attn.data.augment import Augment, augment_batch
from vit_attn.data.draws import Draws
from vit_attn.data.memory import Picks, Resident, ShuffledBatches
from vit_attn.data.module import ImageData
from vit_attn.model import VisionTransformer

BASE = Augment(crop_padding=4, flip=0.5)
RECIPES = {"crop, flip, normalise": BASE, "the same and RandAugment": Augment(rand_augment=9).over(BASE)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=40, help="of ours in a round; of theirs a twentieth, at least 8")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    return parser.parse_args()


class Photos(Dataset):
    """What torchvision's users write: one PIL image at a time."""

    def __init__(self, images: Tensor, recipe: Augment, data: ImageData) -> None:
        policy = [transforms.RandAugment(2, recipe.rand_augment)] if recipe.rand_augment else []
        to_tensor = [transforms.ToTensor(), transforms.Normalize(data.source.mean, data.source.std)]
        crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self.transform = transforms.Compose([*crop, *policy, *to_tensor])
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % 10


def theirs(images: Tensor, recipe: Augment, data: ImageData, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end; the workers are started once."""
    loader = DataLoader(
        Photos(images, recipe, data),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )
    while True:
        yield from loader


def ours(images: Tensor, recipe: Augment, data: ImageData, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, as ``ImageData`` makes them."""
    picks, labels = Picks(len(images), "train"), torch.arange(len(images)) % 10
    resident, steps = Resident(images, labels, data.device), count()
    order = ShuffledBatches(picks, batch_size, num_replicas=1, rank=0)
    loader = DataLoader(picks, batch_size=None, sampler=order, pin_memory=data.device == "cuda")
    for epoch in count():
        order.set_epoch(epoch)
        for pick in loader:
            pixels, targets = resident.gather(pick.addresses)
            draws = Draws((0, next(steps)), len(pixels), device=data.device)
            yield augment_batch(pixels, recipe, data.normalize, draws), targets


def seconds(batches: Iterator[object], number: int, device: str) -> float:
    """The time of that many batches."""
    start = time.perf_counter()
    for _ in islice(batches, number):
        pass
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
