from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from vit_attn.data.datasets.registry import DATASETS, find_dataset
from vit_attn.errors import UserError


def test_an_unknown_data_set_is_refused_with_the_closest_name():
    with pytest.raises(
        UserError, match=r"unknown data set 'cifar1O', did you mean 'cifar10'.*--import names the module"
    ):
        find_dataset("cifar1O")


def test_cifar10_splits_hold_every_labelled_image_once(cifar10_root: Path):
    splits = DATASETS["cifar10"].load(cifar10_root, False)
    labelled = CIFAR10(str(cifar10_root), train=True)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 180, "val": 20, "test": 40}
    found = torch.cat([splits["train"].images, splits["val"].images]).permute(0, 2, 3, 1).numpy()
    assert {image.tobytes() for image in found} == {image.tobytes() for image in labelled.data}
    assert splits["val"].labels.bincount().tolist() == [2] * 10
    assert splits["train"].ground_truth is None


def test_images_keep_their_labels(cifar10_root: Path):
    test = DATASETS["cifar10"].load(cifar10_root, False)["test"]
    theirs = CIFAR10(str(cifar10_root), train=False)
    for i in (0, 17, 39):
        assert np.array_equal(test.images[i].permute(1, 2, 0).numpy(), theirs.data[i])
        assert test.labels[i] == theirs.targets[i]


def test_missing_files_without_download_say_what_where_and_how(tmp_path: Path):
    with pytest.raises(UserError, match=r"cifar10 not found: no .*cifar-10-batches-py; unpack https.*--data\.root"):
        DATASETS["cifar10"].load(tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(UserError, match=r"the download failed \(no network\); unpack https"):
        DATASETS["cifar10"].load(tmp_path / "new", True)
    assert list(tmp_path.iterdir()) == []


def test_corrupt_and_missing_files_are_named_and_left_alone(cifar10_root: Path):
    folder = cifar10_root / CIFAR10.base_folder
    (folder / "data_batch_3").write_bytes(b"corrupt")
    (folder / "test_batch").unlink()
    with pytest.raises(UserError, match="test_batch is missing, data_batch_3 is corrupt"):
        DATASETS["cifar10"].load(cifar10_root, True)
    assert (folder / "data_batch_3").read_bytes() == b"corrupt"


def test_the_real_cifar10_has_the_stated_splits_and_statistics(real_root: Path):
    source = DATASETS["cifar10"]
    splits = source.load(real_root, False)
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [4500] * 10,
        "val": [500] * 10,
        "test": [1000] * 10,
    }
    pixels = splits["train"].images.float() / 255
    assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(source.mean, abs=5e-4)
    assert pixels.std(dim=(0, 2, 3)).tolist() == pytest.approx(source.std, abs=5e-4)


GENERATED = [name for name, info in DATASETS.items() if not info.needs_files]


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_data_set_is_as_its_description_states(name: str):
    info = DATASETS[name]
    splits = info.load(Path(), False)
    assert set(splits) == {"train", "val", "test"}
    seen: set[bytes] = set()
    for split in splits.values():
        assert split.decoded().shape == (len(split), info.in_chans, *info.img_size)
        assert split.labels.unique().tolist() == list(range(len(info.class_names)))
        images = {image.tobytes() for image in split.decoded()[:500].numpy()}
        assert not images & seen  # no image is in two splits
        seen |= images
    pixels = splits["val"].decoded().float() / 255
    if info.mean is not None:
        assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(info.mean, abs=0.01)
        assert pixels.std(dim=(0, 2, 3)).tolist() == pytest.approx(info.std, abs=0.01)
    again = info.load(Path(), False)["val"]
    assert torch.equal(again.decoded(), splits["val"].decoded())
    assert torch.equal(again.labels, splits["val"].labels)


@pytest.mark.parametrize("name", GENERATED)
def test_the_ground_truth_of_a_generated_data_set_names_patches_of_its_grid(name: str):
    split = DATASETS[name].load(Path(), False)["val"]
    for index in range(20 if split.ground_truth else 0):
        truth = split.ground_truth(index)
        names = {truth.answer, *(region for edge in truth.edges for region in edge)}
        assert names <= set(truth.regions)
        assert all(0 <= patch < truth.grid[0] * truth.grid[1] for each in truth.regions.values() for patch in each)
