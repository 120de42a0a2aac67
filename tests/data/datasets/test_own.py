from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.data import ImageData, register_dataset
from vit_attn.data.datasets import registry
from vit_attn.errors import UserError

NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def _unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DATASETS", registry.DATASETS)
    known = dict(registry.DATASETS)
    yield
    registry.DATASETS.clear()
    registry.DATASETS.update(known)


def images(count: int, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_tensors_become_the_splits_that_a_function_names():
    counts = {"train": 8, "val": 4, "test": 2}
    splits = {name: (images(count), torch.arange(count) % 2) for name, count in counts.items()}
    register_dataset("mine", NAMES, img_size=(8, 8))(lambda root: splits)
    data = ImageData("mine", batch_size=4)
    data.setup("fit")
    batch, labels = next(iter(data.val_dataloader()))
    assert batch.shape == (4, 3, 8, 8)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [8, 4, 2]
    assert data.class_names == NAMES
    assert data.own_parts == {"data set mine": __name__}
    with pytest.raises(UserError, match="mine has validation and test images of its own"):
        ImageData("mine", held_out=0.2).setup("fit")


def test_files_are_read_and_missing_splits_held_out(tmp_path: Path):
    for number in range(20):
        pixels = np.full((12, 9, 3), number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    register_dataset("mine", NAMES, img_size=(8, 8))(
        lambda root: {"train": (sorted(root.glob("*.png")), [number % 2 for number in range(20)])}
    )
    data = ImageData("mine", root=str(tmp_path), batch_size=4, held_out=0.2)
    data.setup("fit")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [12, 4, 4]
    assert next(iter(data.train_dataloader()))[0].shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "must return train, val and test by name, got list"),
        ({"val": (images(2), [0, 1])}, "must return train, val and test by name, got val"),
        ({"train": images(2)}, "split train must be images and labels, got Tensor"),
        ({"train": (images(2), [0])}, "must have a class index for each image, got 2 images and labels of shape"),
        ({"train": (images(2), [0.5, 1.0])}, "must have a class index for each image"),
        ({"train": (images(2), [1, 2])}, "has labels 1 to 2, and there are 2 classes, from 0"),
        ({"train": (images(2).float(), [0, 1])}, "must have images as uint8"),
    ],
    ids=["no splits", "no train", "no labels", "few labels", "fractions", "from 1", "floats"],
)
def test_what_is_no_split_is_refused_in_a_sentence(given: object, message: str):
    register_dataset("mine", NAMES)(lambda root: given)
    with pytest.raises(UserError, match=message):
        ImageData("mine").setup("fit")


@pytest.mark.parametrize("name", ["coins", "folder", "Mine", "hfds/x", ""])
def test_a_name_that_is_taken_or_none_is_refused(name: str):
    with pytest.raises(UserError):
        register_dataset(name, NAMES)
    with pytest.raises(UserError, match="at least two classes"):
        register_dataset("mine", "ab")


def test_an_unknown_name_is_answered_with_the_registered_ones():
    register_dataset("mine_too", NAMES)(lambda root: {})
    with pytest.raises(UserError, match=r"did you mean 'mine_too'\?.*mine_too"):
        ImageData("mine_to")
