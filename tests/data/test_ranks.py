"""Two ranks train on what one trains on with twice the batch."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.testing import assert_close

from vit_attn.data import ImageData
from vit_attn.data.augment import Augment

ALL = {
    "crop": Augment(crop_padding=2, flip=0.0, random_resized_crop=0.0),
    "flip": Augment(flip=0.5),
    "rand_augment": Augment(rand_augment=9),
    "trivial_augment": Augment(trivial_augment=0.8),
    "colour_jitter": Augment(colour_jitter=0.4),
    "erase": Augment(erase=0.7),
    "cutout": Augment(cutout=4),
    "random_resized_crop": Augment(random_resized_crop=0.3),
    "flip_alternating": Augment(flip=0.0, flip_alternating=True),
    "mixup": Augment(mixup=0.8),
    "cutmix": Augment(cutmix=1.0),
    "mixup and cutmix": Augment(mixup=0.8, cutmix=1.0, erase=0.5),
}
ON_DEVICE = {"flip_alternating"}
"""What needs all images on the device."""


def trainer_at(ranks: int, rank: int, epoch: int = 0, taken: int = 0) -> L.Trainer:
    """A trainer that says what the data asks of it, and nothing else."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=taken))
    loop = SimpleNamespace(batch_progress=progress, total_batch_idx=-1)
    answers = {
        "__init__": lambda self: None,
        "training": True,
        "world_size": ranks,
        "global_rank": rank,
        "num_devices": 1,
        "current_epoch": epoch,
        "global_step": 0,
        "estimated_stepping_batches": 10,
        "fit_loop": SimpleNamespace(epoch_loop=loop),
        "state": SimpleNamespace(fn="fit"),
    }
    return type("Answers", (L.Trainer,), answers)()


def data_of(root: Path, ranks: int, rank: int, epoch: int = 0, taken: int = 0, **options) -> ImageData:
    settings = {"img_size": 16, "batch_size": 8 // ranks, "normalize": "imagenet", "num_workers": 0, "seed": 3}
    data = ImageData("folder", str(root), **(settings | options))
    data.trainer = trainer_at(ranks, rank, epoch, taken)
    data.setup("fit")
    return data


def epoch_on(root: Path, ranks: int, rank: int, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch as the network takes them."""
    data = data_of(root, ranks, rank, **options)
    loader, batches = data.train_dataloader(), []
    loader.sampler.set_epoch(options.get("epoch", 0))
    for batch in loader:
        data.trainer.fit_loop.epoch_loop.total_batch_idx += 1
        batch = data.on_before_batch_transfer(batch, 0)
        batches.append(data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device("cpu"), 0), 0))
    return batches


def together(root: Path, ranks: int, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    parts = [epoch_on(root, ranks, rank, **options) for rank in range(ranks)]
    return [tuple(torch.cat(each) for each in zip(*step, strict=True)) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("loader", ["memory", "workers"])
@pytest.mark.parametrize("name", ALL)
def test_ranks_together_see_what_one_sees_with_all_of_the_batch(picture_folder, name: str, loader: str):
    if loader == "workers" and name in ON_DEVICE:
        pytest.skip("needs all images on the device")
    root = picture_folder()
    for options in ({"epoch": 0}, {"epoch": 3, "taken": 1}):
        whole = together(root, 1, augment=ALL[name], loader=loader, **options)
        for ranks in (2, 4):
            parts = together(root, ranks, augment=ALL[name], loader=loader, **options)
            assert len(parts) == len(whole) == 3 - options.get("taken", 0)
            assert_close(parts, whole, rtol=0, atol=0)
    plain = together(root, 1, loader=loader, augment=Augment(flip=0.0, random_resized_crop=0.0))
    assert not torch.equal(whole[0][0], plain[0][0])


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_ranks_share_the_order_of_an_epoch(picture_folder, balance: str):
    root = picture_folder({"bright": 20, "dark": 7})
    whole = together(root, 1, balance=balance, augment=Augment(flip=0.0, random_resized_crop=0.0))
    parts = together(root, 2, balance=balance, augment=Augment(flip=0.0, random_resized_crop=0.0))
    assert_close(parts, whole, rtol=0, atol=0)
