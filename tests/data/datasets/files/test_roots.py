from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from vit_attn.data import ImageData
from vit_attn.data.datasets import torchvision as torchvision_sets
from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.files.roots import own_picture
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.errors import UserError


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a download a failure of the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(CIFAR10, "download", refuse)
    for recipe in torchvision_sets.TORCHVISION_SPECS.values():
        if hasattr(recipe.kind, "download"):
            monkeypatch.setattr(recipe.kind, "download", refuse)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "dtd", "stl10", "torch/cifar10"])
def test_photos_are_not_taken_for_the_folder_of_downloads(picture_folder, no_download, name: str):
    root = picture_folder({"cat": 1, "dog": 1}, "photos/train").parent
    before = sorted(root.rglob("*"))
    with pytest.raises(
        UserError, match=r"photos holds pictures, such as train/cat/00.png, .* add --data.dataset=folder"
    ):
        ImageData(name, str(root)).cache.load(True)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("name", ["cifar10", "mnist", "folder"])
def test_a_table_is_not_taken_for_a_folder(tmp_path: Path, no_download, name: str):
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"labels.csv is a file, not a folder: a table is --data.dataset=csv"):
        ImageData(name, str(tmp_path / "labels.csv")).cache.load(True)


def test_a_root_is_not_made_where_nothing_is(tmp_path: Path, no_download):
    with pytest.raises(UserError, match=r"cifar10: no folder .*deep/data, and none .*deep to make it in: set --data.r"):
        ImageData("cifar10", str(tmp_path / "deep/data")).cache.load(True)
    assert not (tmp_path / "deep").exists()


def test_coins_say_that_photos_are_not_read(picture_folder):
    root = picture_folder({"cat": 1})
    said = f"{root} is not read, as coins needs no files: for your own, add --data.dataset=folder, or =csv"
    assert find_dataset("coins", root).remarks == [said]
    assert find_dataset("coins", Path("nowhere")).remarks == []


def test_webdataset_needs_more_than_photos(picture_folder):
    with pytest.raises(UserError, match=r"and not tar files of webdataset: to train on them, add --data.dataset=fold"):
        find_dataset("wds/photos", picture_folder({"cat": 1}))


def test_pictures_of_torchvision_are_nobodys_own(picture_folder, tmp_path: Path):
    picture_folder({"jpg": 2}, "data/flowers-102")
    assert own_picture(tmp_path / "data") is None
    assert own_picture(tmp_path) == tmp_path / "data/flowers-102/jpg/00.png"


def test_a_misspelt_folder_is_proposed(picture_folder):
    root = picture_folder({"cat": 1})
    with pytest.raises(UserError, match=r"folder .*pictuers cannot be read: .*, did you mean '.*pictures'\?"):
        folder_source(root.with_name("pictuers"))
