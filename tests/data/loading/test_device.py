"""Loaders yield what a network trains on: augmented, normalised, on its device, with a Trainer and without one."""

import gc
import multiprocessing
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.testing import assert_close

from vit_attn.data import Augment, ImageData
from vit_attn.data.loading.device import DeviceLoader, TrainingLoader
from vit_attn.data.transforms.rng import lasting_order

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Recorder(L.LightningModule):
    """Trains one number, and keeps its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.batches = torch.nn.Parameter(torch.zeros(1)), {"train": [], "val": []}

    def training_step(self, batch, _):
        self.batches["train"].append(batch)
        return self.number.sum()

    def validation_step(self, batch, _):
        self.batches["val"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Measured(Recorder):
    """Keeps nothing of the test."""

    def test_step(self, batch, batch_idx):
        pass


def data_of(root: Path, **options) -> ImageData:
    settings = {"batch_size": 20, "download": False, "num_workers": 0} | options
    return ImageData("cifar10", root=str(root), **settings)


@pytest.mark.parametrize(("loader", "workers"), [("memory", 0), ("workers", 0), ("workers", 2)])
def test_a_plain_loop_gets_the_tensors_that_a_trainer_gets(cifar10_root: Path, loader: str, workers: int):
    augment = Augment(rand_augment=9, erase=0.5, mixup=0.8, cutmix=1.0, flip_alternating=loader == "memory")
    options = {"loader": loader, "num_workers": workers, "augment": augment}
    recorder = Recorder()
    trainer = L.Trainer(max_epochs=2, num_sanity_val_steps=0, enable_checkpointing=False, **QUIET)
    trainer.fit(recorder, datamodule=data_of(cifar10_root, **options))
    data = data_of(cifar10_root, **options)
    train, val = data.train_dataloader(), data.val_dataloader()
    assert_close([batch for _ in range(2) for batch in train], recorder.batches["train"], rtol=0, atol=0)
    assert_close(list(val), recorder.batches["val"][: len(val)], rtol=0, atol=0)
    assert len(train) == 9


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_images_come_normalised_and_labels_with_them(cifar10_root: Path, loader: str):
    data = data_of(cifar10_root, loader=loader, batch_size=7)
    data.prepare_data()
    data.setup("fit")
    images, labels = (torch.cat(each) for each in zip(*data.val_dataloader(), strict=True))
    split = data.splits["val"]
    order = lasting_order(len(split))
    assert images.dtype == torch.float32
    assert torch.equal(images, data.normalize(split.decoded()[order]))
    assert torch.equal(labels, split.labels[order])
    assert torch.equal(torch.cat([y for _, y in data.predict_dataloader()]), data.splits["test"].labels)
    for images, labels in data.train_dataloader():
        assert (images.dtype, images.shape, labels.dtype) == (torch.float32, (7, 3, 32, 32), torch.int64)


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_mixed_images_come_with_class_probabilities(cifar10_root: Path, loader: str):
    data = data_of(cifar10_root, loader=loader, augment=Augment(mixup=0.8, cutmix=1.0))
    targets = torch.cat([targets for _, targets in data.train_dataloader()])
    assert targets.shape == (180, 10)
    assert_close(targets.sum(dim=1), torch.ones(180))
    assert (targets.max(dim=1).values < 0.999).float().mean() > 0.5
    assert all(labels.dtype == torch.int64 for _, labels in data.val_dataloader())


def test_each_plain_epoch_has_another_order_and_augmentation_unless_it_is_set(cifar10_root: Path):
    loader = data_of(cifar10_root).train_dataloader()
    first, second = list(loader), list(loader)
    assert not torch.equal(first[0][1], second[0][1])
    loader.set_epoch(0)
    assert_close(list(loader), first, rtol=0, atol=0)
    loader.set_epoch(0)
    next(iter(loader))  # a loop that breaks has had its epoch, too
    assert_close(list(loader), second, rtol=0, atol=0)


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_a_plain_loop_gets_the_same_images_before_and_after_a_trainers_run(cifar10_root: Path, loader: str):
    options = {"loader": loader, "augment": Augment(flip=0.5, mixup=0.8)}
    data, untouched = data_of(cifar10_root, **options), data_of(cifar10_root, **options)
    before = list(data.train_dataloader())
    trainer = L.Trainer(max_epochs=2, limit_train_batches=3, enable_checkpointing=False, **QUIET)
    trainer.fit(Recorder(), datamodule=data)
    assert len(before) == 9
    assert_close(list(data.train_dataloader()), before, rtol=0, atol=0)
    assert_close(before, list(untouched.train_dataloader()), rtol=0, atol=0)
    assert len(list(trainer.train_dataloader)) == 9
    trainer.test(Measured(), datamodule=data)
    assert_close(list(data.train_dataloader()), before, rtol=0, atol=0)


def test_a_plain_loop_within_a_run_gets_whole_epochs_and_leaves_the_run_alone(cifar10_root: Path):
    class Looper(L.Callback):
        def __init__(self) -> None:
            self.epochs = []

        def on_train_batch_end(self, trainer, *_):
            self.epochs.append(list(trainer.datamodule.train_dataloader()))

    def fit(callbacks) -> list:
        recorder, options = Recorder(), {"max_epochs": 2, "limit_train_batches": 2, "enable_checkpointing": False}
        trainer = L.Trainer(callbacks=callbacks, **options, **QUIET)
        trainer.fit(recorder, datamodule=data_of(cifar10_root, augment=Augment(flip=0.5)))
        return recorder.batches["train"]

    looper = Looper()
    assert_close(fit([looper]), fit([]), rtol=0, atol=0)
    assert [len(each) for each in looper.epochs] == [9] * 4
    assert_close(looper.epochs[3], looper.epochs[0], rtol=0, atol=0)


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_iterators_at_once_are_epochs_of_their_own(cifar10_root: Path, loader: str):
    options = {"loader": loader, "augment": Augment(flip=0.5)}
    both, alone = (data_of(cifar10_root, **options).train_dataloader() for _ in range(2))
    first, second = zip(*zip(both, both, strict=True), strict=True)
    assert_close([list(first), list(second)], [list(alone), list(alone)], rtol=0, atol=0)
    held = iter(both)
    next(held)
    list(both)
    del held  # an epoch that was left early does not set back the later ones
    list(alone), list(alone)
    assert_close(list(both), list(alone), rtol=0, atol=0)


def test_the_tuner_changes_the_size_of_batches(cifar10_root: Path):
    data = data_of(cifar10_root)
    data.batch_size = 30
    assert {len(labels) for _, labels in data.train_dataloader()} == {30}


def test_nothing_is_left_for_the_transfer_hooks(cifar10_root: Path):
    data = data_of(cifar10_root)
    for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        assert not is_overridden(hook, data, L.LightningDataModule)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader())
    assert all(isinstance(loader, DeviceLoader) for loader in loaders)
    assert isinstance(loaders[0], TrainingLoader)


def test_the_device_is_the_trainers_or_the_one_that_is_named(cifar10_root: Path, trainer_at):
    data = data_of(cifar10_root)
    assert data.val_dataloader().device == torch.device("cpu")
    assert data.val_dataloader(device="cuda").device == torch.device("cuda")
    data.trainer = trainer_at(1, 0)
    data.trainer.strategy.root_device = torch.device("meta")
    loader = data.val_dataloader()
    assert loader.device == torch.device("meta")
    assert {each.device.type for each in next(iter(loader))} == {"meta"}


def test_workers_end_with_the_trainer(cifar10_root: Path):
    data = data_of(cifar10_root, loader="workers", num_workers=1)
    trainer = L.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    trainer.fit(Recorder(), datamodule=data)
    assert trainer.train_dataloader.batches.loader._iterator is None


@pytest.mark.slow
def test_workers_end_with_their_loader_and_when_the_user_interrupts(cifar10_root: Path):
    class Interrupted(Recorder):
        def training_step(self, batch, _):
            raise KeyboardInterrupt

    data = data_of(cifar10_root, loader="workers", num_workers=1)
    loader = data.train_dataloader()
    next(iter(loader))
    assert len(multiprocessing.active_children()) == 1
    del loader
    gc.collect()
    assert multiprocessing.active_children() == []
    trainer = L.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(Interrupted(), datamodule=data)
    assert multiprocessing.active_children() == []


def test_a_prediction_writer_learns_which_images_a_batch_holds(cifar10_root: Path, tmp_path: Path):
    class Writer(L.pytorch.callbacks.BasePredictionWriter):
        indices: list[list[int]] = []  # noqa: RUF012

        def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, *_):
            self.indices.append(batch_indices)

    class Predictor(Recorder):
        def predict_step(self, batch, _):
            return batch[1]

    trainer = L.Trainer(callbacks=[Writer("batch")], **QUIET)
    trainer.predict(Predictor(), datamodule=data_of(cifar10_root), return_predictions=False)
    assert Writer.indices == [list(range(20)), list(range(20, 40))]
