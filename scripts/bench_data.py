#!/usr/bin/env python
"""Our input against torchvision's, in turn in one run; random images of CIFAR-10's size.

On the CPU: images a second, cropped, flipped, normalised, from memory, over torchvision's transforms of
PIL images in a DataLoader of two workers; the same again with RandAugment. On a GPU: training steps of a ViT in bf16 on
gathered and augmented batches, over the same steps on one batch that is already there. With --files, training images a
second that two workers read from JPEG files of 500×375 pixels, cropped and resized to 224, mirrored, normalised: ours
over torchvision's ImageFolder and transforms.

    .venv/bin/python scripts/bench_data.py
    .venv/bin/python scripts/bench_data.py --device cuda --batch-size 1024
    .venv/bin/python scripts/bench_data.py --files 600 --batch-size 50
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice, repeat
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from vit_attn.data.loading.batch_sources import MemoryBatches
from vit_attn.data.loading.device import TrainingTransform
from vit_attn.data.loading.device_dataset import DeviceDataset
from vit_attn.data.loading.progress import RunProgress
from vit_attn.data.loading.sampler import ShuffledBatches
from vit_attn.data.module import ImageData
from vit_attn.data.transforms.augment import OFF, Augment
from vit_attn.model import VisionTransformer

WORKERS, PREFETCHED = 2, 2
BASE = Augment(crop_padding=4, flip=0.5)
RECIPES = {"crop, flip, normalise": BASE, "the same and RandAugment": Augment(rand_augment=9).over(BASE)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200, help="of ours in a round; of theirs a tenth, at least 8")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of ours, on the CPU")
    parser.add_argument("--files", type=int, default=0, help="JPEG files to read instead, in a temporary folder")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--compile-augment", action="store_true", help="torch.compile the augmentation")
    return parser.parse_args()


class Photos(Dataset):
    """Data set as torchvision's users write it: one PIL image at a time."""

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


def theirs(images: Tensor, recipe: Augment, data: ImageData, batch_size: int) -> Iterator[object]:
    """Batches without end; the workers are started once."""
    photos = Photos(images, recipe, data)
    options = {"num_workers": WORKERS, "prefetch_factor": PREFETCHED, "persistent_workers": True}
    loader = DataLoader(photos, batch_size, shuffle=True, drop_last=True, **options)
    while True:
        yield from loader


def ours(
    images: Tensor, recipe: Augment, data: ImageData, batch_size: int, device: str = "cpu", compiled: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, as ``ImageData`` makes them."""
    labels = torch.arange(len(images)) % 10
    on_device, steps = DeviceDataset(images, labels, device), count()
    transform = TrainingTransform(recipe.over(OFF), data.normalize, (32, 32), len(images), 10, 0, compiled)
    sampler = ShuffledBatches(images, batch_size, num_replicas=1, rank=0)
    batches = MemoryBatches(sampler, lambda _: on_device)
    for epoch in count():
        sampler.set_epoch(epoch)
        for batch in batches.on(torch.device(device)):
            yield transform(batch, RunProgress(None), next(steps), 0.0)


def bench_cpu(args: argparse.Namespace, images: Tensor, data: ImageData) -> None:
    """Images a second from torchvision's workers and from us, in turn."""
    for name, recipe in RECIPES.items():
        mine = ours(images, recipe, data, args.batch_size, compiled=args.compile_augment)
        yours = theirs(images, recipe, data, args.batch_size)
        next(mine), next(yours)
        rates: dict[str, list[float]] = {"ours": [], "torchvision's": []}
        for _ in range(args.rounds):
            drain(yours, WORKERS * PREFETCHED)  # made ahead: from here on the workers are as busy as ever
            some = max(8, args.batches // 10)
            rates["torchvision's"].append(some * args.batch_size / seconds(drain, yours, some))
            time.sleep(1.5 * WORKERS * PREFETCHED * args.batch_size / rates["torchvision's"][-1])  # they make as many
            rates["ours"].append(args.batches * args.batch_size / seconds(drain, mine, args.batches))
        report(name, rates)


def bench_cuda(args: argparse.Namespace, images: Tensor, data: ImageData) -> None:
    """Images a second trained on batches of ours and on one batch again and again, in turn."""
    net = VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=192, depth=9, num_heads=3, mlp_ratio=2.0
    ).to(args.device)
    if args.compile:
        net.compile()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def train(batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        for pixels, targets in islice(batches, args.batches):
            with torch.autocast(args.device, dtype=torch.bfloat16):
                loss = F.cross_entropy(net(pixels), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        synchronize(args.device)

    for name, recipe in RECIPES.items():
        batches = {"ours": ours(images, recipe, data, args.batch_size, args.device, args.compile_augment)}
        batches["one batch"] = repeat(next(batches["ours"]))
        rates: dict[str, list[float]] = {each: [] for each in batches}
        for number in range(args.rounds + 1):
            for each, source in batches.items():
                rate = args.batches * args.batch_size / seconds(train, source)
                if number:  # the first warms up, and compiles
                    rates[each].append(rate)
        report(name, rates)
        alone = seconds(drain, batches["ours"], args.batches, args.device)
        step = args.batch_size / statistics.median(rates["ours"])
        print(f"  the input by itself takes {alone / args.batches / step:.1%} of the {1000 * step:.2f} ms of a step")


def bench_files(args: argparse.Namespace) -> None:
    """Images a second that workers read from files, ours and torchvision's in turn."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.files):
            path = Path(folder) / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            smooth_noise(number).save(path, quality=90)
        data = ImageData(
            "folder", folder, batch_size=args.batch_size, loader="workers", num_workers=WORKERS, normalize="imagenet"
        )
        data.prepare_data()
        mean, std = data.statistics.mean, data.statistics.std
        crop = [transforms.RandomResizedCrop(224, (0.35, 1.0)), transforms.RandomHorizontalFlip()]
        theirs_of = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(mean, std)])
        options = {"num_workers": WORKERS, "persistent_workers": True}
        yours = DataLoader(ImageFolder(folder, theirs_of), args.batch_size, shuffle=True, drop_last=True, **options)
        mine = data.train_dataloader()
        rates: dict[str, list[float]] = {"ours": [], "torchvision's": []}
        for number in range(args.rounds + 1):
            for name, loader in zip(rates, (mine, yours), strict=True):
                start, count = time.perf_counter(), 0
                for batch in loader:
                    count += len(batch[0])
                if number:  # the first starts the workers
                    rates[name].append(count / (time.perf_counter() - start))
        report(f"{args.files} files, {WORKERS} workers", rates)


def smooth_noise(number: int) -> Image.Image:
    """A picture with about the detail of a photograph."""
    generator = torch.Generator().manual_seed(number)
    small = torch.randint(0, 256, (47, 63, 3), dtype=torch.uint8, generator=generator).numpy()
    return Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)


def drain(batches: Iterator[object], number: int, device: str = "cpu") -> None:
    """Take that many, and wait until they are there."""
    for _ in islice(batches, number):
        pass
    synchronize(device)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[..., None], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def report(name: str, rates: dict[str, list[float]]) -> None:
    """Medians over the rounds, with the quarter and three-quarter points."""
    print(name)
    mine, other = rates
    ratios = [a / b for a, b in zip(rates[mine], rates[other], strict=True)]
    rows = {f"{each}, img/s": values for each, values in rates.items()} | {f"{mine} / {other}": ratios}
    for row, values in rows.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"  {row:<22} {middle:11.3f}   ({low:.3f} to {high:.3f})")


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    images = torch.randint(0, 256, (20_000, 3, 32, 32), dtype=torch.uint8)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    print(f"{versions}, {args.device} ({device}){', compiled' if args.compile else ''}")
    print(f"batch {args.batch_size}, {args.rounds} rounds; median (quarter to three-quarter point)")
    if args.files:
        bench_files(args)
        return
    bench = bench_cuda if args.device == "cuda" else bench_cpu
    bench(args, images, ImageData("cifar10"))


if __name__ == "__main__":
    main()
