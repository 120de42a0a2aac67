from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from vit_attn.data import Augment, ImageData
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError


class Watcher(L.LightningModule):
    """Trains one number, and keeps the batches that it was given."""

    def __init__(self):
        super().__init__()
        self.number, self.seen = torch.nn.Parameter(torch.zeros(1)), {"train": [], "val": []}

    def training_step(self, batch, _):
        self.seen["train"].append(batch)
        return self.number.sum()

    def validation_step(self, batch, _):
        self.seen["val"].append(batch)

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches  # which makes lightning ask for the loader before it resumes
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}


def fit(data: ImageData, epochs: int = 2, ckpt_path: Path | None = None, **options) -> Watcher:
    watcher = Watcher()
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, enable_checkpointing=False, **(QUIET | options))
    trainer.fit(watcher, datamodule=data, ckpt_path=ckpt_path)
    return watcher


def test_training_images_are_augmented_and_validation_images_are_not(cifar10_root: Path):
    data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False)
    watcher = fit(data)
    plain = data.normalize(data.splits["val"].images)
    assert torch.equal(watcher.seen["val"][0][0], plain[lasting_order(len(plain))])
    first, second = (torch.cat([x for x, _ in watcher.seen["train"][i : i + 9]]) for i in (0, 9))
    originals = {image.numpy().tobytes() for image in data.normalize(data.splits["train"].images)}
    assert sum(image.numpy().tobytes() in originals for image in first) < 20
    assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


def test_a_run_sees_the_same_images_again_and_another_seed_others(cifar10_root: Path):
    def seen(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(torch.seed())  # what was drawn before has no say
        data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False, seed=seed)
        return [images for images, _ in fit(data).seen["train"]]

    once, again, other = seen(0), seen(0), seen(1)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_workers_give_the_same_images_in_the_same_order(cifar10_root: Path, workers: int):
    plain = Augment(crop_padding=0, flip=0.0, erase=0.5)  # what the device does is the same, too

    def seen(**options) -> list[torch.Tensor]:
        data = ImageData("cifar10", root=str(cifar10_root), batch_size=16, download=False, augment=plain, **options)
        return [each for stage in fit(data).seen.values() for batch in stage for each in batch]

    pairs = zip(seen(loader="memory"), seen(loader="workers", num_workers=workers), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("step", "loader"), [(9, "memory"), (13, "memory"), (9, "workers"), (13, "workers")])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(cifar10_root: Path, tmp_path: Path, step: int, loader: str):
    on = Augment(rand_augment=9, flip_alternating=loader == "memory")

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == step:
                trainer.save_checkpoint(tmp_path / "kept.ckpt", weights_only=False)

    def seen(**options) -> list[torch.Tensor]:
        settings = {"augment": on, "loader": loader, "num_workers": 2}
        data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False, **settings)
        return [images for images, _ in fit(data, 3, **options).seen["train"]]

    whole = seen(callbacks=Keep())
    resumed = seen(ckpt_path=tmp_path / "kept.ckpt")
    assert len(resumed) == 27 - step
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole[step:], strict=True))


def test_alternating_flips_mirror_each_image_every_other_epoch(cifar10_root: Path):
    on = Augment(crop_padding=0, flip_alternating=True)
    data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False, augment=on)
    batches = [images for images, _ in fit(data).seen["train"]]
    first, second = (torch.cat(batches[i : i + 9]) for i in (0, 9))
    originals = data.normalize(data.splits["train"].images)

    def ways(epoch: torch.Tensor) -> list[bool]:
        """Whether each image, in the order of the data set, is mirrored."""
        seen = {image.numpy().tobytes() for image in epoch}
        plain = [image.numpy().tobytes() in seen for image in originals]
        assert [image.flip(-1).numpy().tobytes() in seen for image in originals] == [not each for each in plain]
        return plain

    assert ways(first) == [not each for each in ways(second)]
    with pytest.raises(UserError, match="flip_alternating needs all images on the device: set loader to memory"):
        fit(ImageData("cifar10", root=str(cifar10_root), batch_size=20, augment=on, loader="workers"))


def test_lightnings_limits_hold(cifar10_root: Path):
    data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False)
    assert len(fit(data, epochs=1, limit_train_batches=3).seen["train"]) == 3
    assert len(fit(data, epochs=1, limit_train_batches=0.5).seen["train"]) == 4
    with pytest.warns(UserWarning, match="turning off the train dataloader shuffling"):
        batches = fit(data, epochs=2, overfit_batches=2).seen["train"]
    assert [len(labels) for _, labels in batches] == [20] * 4
    assert torch.equal(batches[0][1], batches[2][1])


def test_mixing_gives_shares_of_classes_and_stops_when_told(cifar10_root: Path):
    mixing = Augment(mixup=0.8, cutmix=1.0, mix_until=0.5)
    data = ImageData("cifar10", root=str(cifar10_root), batch_size=20, download=False, augment=mixing)
    targets = [y for _, y in fit(data, epochs=2).seen["train"]]
    assert [y.ndim for y in targets] == [2] * 9 + [1] * 9


def test_settings_that_are_not_given_stay_as_the_data_set_has_them():
    assert ImageData("cifar10", augment=Augment(mixup=0.8)).augment == Augment(4, 0.5, 0, 0.0, 0.8, 0.0, 1.0)
    assert ImageData("coins", augment=Augment(erase=0.1)).augment == Augment(0, 0.0, 0, 0.1, 0.0, 0.0, 1.0)


def test_lightning_keeps_the_sampler_that_shares_an_epoch_out_among_ranks():
    data = ImageData("coins", batch_size=16)
    data.prepare_data()
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, DistributedSampler)  # any other, lightning replaces under DDP
    assert len(next(iter(loader))[0]) == len(next(iter(loader))[1]) == 16


def test_normalised_pixels_have_mean_0_and_deviation_1():
    data = ImageData("coins")
    data.prepare_data()
    pixels = data.normalize(data.splits["val"].images)
    assert pixels.mean().abs() < 0.05
    assert pixels.std() == pytest.approx(1, abs=0.05)


def test_what_the_network_must_know_is_known_without_files():
    data = ImageData("cifar10", root="nowhere")
    assert (data.num_classes, data.img_size, data.in_chans) == (10, (32, 32), 3)
    assert data.class_names[3] == "cat"


def test_probe_images_are_always_the_same_and_from_the_validation_split():
    data = ImageData("coins")
    data.prepare_data()
    probe, again = data.probe(6), ImageData("coins", seed=9)
    again.prepare_data()
    assert torch.equal(probe.images, again.probe(6).images)
    held_out = {image.numpy().tobytes() for image in data.splits["val"].images}
    assert all(image.numpy().tobytes() in held_out for image in probe.images)
    assert len(probe.ground_truth) == 6
    assert torch.equal(data.probe(2).images, probe.images[:2])


def test_the_folder_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, cifar10_root: Path):
    monkeypatch.setenv("VIT_ATTN_DATA", str(cifar10_root))
    data = ImageData("cifar10", download=False)
    data.prepare_data()
    assert len(data.splits["test"].images) == 40


def test_a_batch_larger_than_the_data_shrinks_to_it_and_says_so(cifar10_root: Path, caplog: pytest.LogCaptureFixture):
    data = ImageData("cifar10", root=str(cifar10_root), batch_size=181, download=False)
    watcher = fit(data, epochs=1)
    assert [len(images) for images, _ in watcher.seen["train"]] == [180]
    assert "batch_size: 180, since there are 180 training images, not 181" in caplog.text


def test_a_data_set_may_hold_out_another_fraction(cifar10_root: Path):
    data = ImageData("cifar10", root=str(cifar10_root), held_out=0.25, download=False)
    data.prepare_data()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 150, "val": 50, "test": 40}
    for wrong in (0, 0.5, -1):
        with pytest.raises(UserError, match=r"held_out must be above 0 and below 0\.5"):
            ImageData("cifar10", root=str(cifar10_root), held_out=wrong)
    with pytest.raises(UserError, match=r"has validation images of its own: leave out --data\.held_out"):
        ImageData("coins", held_out=0.2)


def test_images_may_be_wider_than_high(cifar10_root: Path):
    data = ImageData("cifar10", root=str(cifar10_root), img_size=[16, 24], batch_size=20, download=False)
    assert data.img_size == (16, 24)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (20, 3, 16, 24)
    for wrong in ([16], [16, 24, 3], [0, 24], 0):
        with pytest.raises(UserError, match="img_size must be a side in pixels, or height and width"):
            ImageData("cifar10", root=str(cifar10_root), img_size=wrong)


def test_settings_below_their_minimum_are_refused():
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        ImageData("coins", batch_size=0)
    with pytest.raises(UserError, match=r"memory_budget_gb must be at least 0, got -1"):
        ImageData("coins", memory_budget_gb=-1)
