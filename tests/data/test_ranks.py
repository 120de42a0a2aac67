"""Two ranks train on what one trains on with twice the batch."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from vit_attn.data import ImageData
from vit_attn.data.loading.device import TrainingLoader
from vit_attn.data.transforms.augment import Augment

pytestmark = pytest.mark.slow  # an epoch on one rank and on two, by each augmentation and loader
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


def data_of(root: Path, trainer, ranks: int, **options) -> ImageData:
    settings = {"img_size": 16, "batch_size": 8 // ranks, "normalize": "imagenet", "num_workers": 0, "seed": 3}
    data = ImageData("folder", str(root), **(settings | options))
    data.trainer = trainer
    data.setup("fit")
    return data


def trained_on(data: ImageData) -> TrainingLoader:
    """The loader that the trainer trains on."""
    loader = data.train_dataloader()
    data.trainer.fit_loop._combined_loader = SimpleNamespace(flattened=[loader])
    return loader


def epoch_on(root: Path, trainer, ranks: int, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch as the network takes them."""
    data = data_of(root, trainer, ranks, **options)
    loader, batches = trained_on(data), []
    loader.sampler.set_epoch(trainer.current_epoch)
    for batch in loader:
        batches.append(batch)
        data.trainer.fit_loop.epoch_loop.total_batch_idx += 1
    return batches


@pytest.fixture
def together(trainer_at) -> Callable[..., list[tuple[torch.Tensor, torch.Tensor]]]:
    """The batches of all ranks, put together."""

    def join(root: Path, ranks: int, epoch: int = 0, taken: int = 0, **options):
        parts = [epoch_on(root, trainer_at(ranks, rank, epoch, taken), ranks, **options) for rank in range(ranks)]
        return [tuple(torch.cat(each) for each in zip(*step, strict=True)) for step in zip(*parts, strict=True)]

    return join


@pytest.mark.parametrize("loader", ["memory", "workers"])
@pytest.mark.parametrize("name", ALL)
def test_ranks_together_see_what_one_sees_with_all_of_the_batch(picture_folder, together, name: str, loader: str):
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
def test_ranks_share_the_order_of_an_epoch(picture_folder, together, balance: str):
    root = picture_folder({"bright": 20, "dark": 7})
    whole = together(root, 1, balance=balance, augment=Augment(flip=0.0, random_resized_crop=0.0))
    parts = together(root, 2, balance=balance, augment=Augment(flip=0.0, random_resized_crop=0.0))
    assert_close(parts, whole, rtol=0, atol=0)


def test_a_run_that_goes_on_within_an_epoch_with_other_batches_is_told_so(picture_folder, trainer_at):
    root = picture_folder()
    stopped = data_of(root, trainer_at(1, 0), 1).train_dataloader().state_dict()
    assert stopped == data_of(root, trainer_at(2, 1), 2).train_dataloader().state_dict() == {"step_images": 8}
    loader = trained_on(data_of(root, trainer_at(2, 1, 0, 1), 1))
    loader.load_state_dict(stopped)
    with pytest.warns(UserWarning, match="stopped within an epoch with 8 images per step, and resumes with 16"):
        list(loader)
