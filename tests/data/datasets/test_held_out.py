from pathlib import Path

import numpy as np
import pytest
import torch

from vit_attn.data import ImageData
from vit_attn.data.datasets.held_out import partition, stratified_split
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import Split
from vit_attn.errors import UserError


@pytest.mark.parametrize("held_out", [1, 10, 57, 100])
def test_a_stratified_split_takes_the_same_share_of_every_class(held_out):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(5), 40)).tolist()
    kept, held = stratified_split(labels, held_out)
    assert sorted([*kept, *held]) == list(range(200))
    assert len(held) == held_out
    assert np.abs(np.bincount(np.array(labels)[held], minlength=5) - held_out / 5).max() <= 1


def test_a_split_depends_on_its_seed_only():
    labels = [i % 10 for i in range(100)]
    assert np.array_equal(stratified_split(labels, 20)[1], stratified_split(labels, 20)[1])
    assert not np.array_equal(stratified_split(labels, 20)[1], stratified_split(labels, 20, seed=1)[1])


def shared(names: list[str], root: str = "/pictures") -> dict[str, int]:
    """The part of each picture, by its name."""
    paths = [f"{root}/{label}/{name}" for label in ("cat", "dog") for name in names]
    labels = torch.arange(2).repeat_interleave(len(names))
    parts = partition(Split(None, labels, pictures=ImageFileList(paths, Path(root))), 3, "pictures", ["cat", "dog"])
    assert [part.labels.bincount().tolist() for part in parts[1:]] == [[max(1, round(len(names) / 10))] * 2] * 2
    return {
        path.removeprefix(f"{root}/"): number
        for number, part in enumerate(parts)
        for path in part.pictures.paths.tolist()
    }


def test_parts_stay_when_images_come_and_folders_move():
    names = [f"{number}.png" for number in range(300)]
    before = shared(names)
    assert len(before) == 600
    assert shared(names, "/elsewhere/else") == before
    assert sorted(shared(names[::-1]).items()) == sorted(before.items())
    grown = shared([*names, *(f"new_{number}.png" for number in range(150))])
    moved = [name for name, part in before.items() if (part == 0) != (grown[name] == 0)]
    assert len(moved) <= 15  # of 120 that were held out; a new drawing would move over 150
    assert sum(part > 0 for name, part in grown.items() if "new" in name) > 40


def test_parts_are_no_pattern_of_names():
    part = np.array([part for _, part in sorted(shared([f"{number:04d}.png" for number in range(1000)]).items())])
    assert np.array_equal(np.unique(part), [0, 1, 2])
    place = np.flatnonzero(part == 1) % 1000
    assert np.histogram(place, bins=5, range=(0, 1000))[0].min() > 20


def test_parts_do_not_depend_on_how_the_root_is_named(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    seen = []
    for root in (here, Path(), there):
        if root == there:
            here.rename(there)
        else:
            monkeypatch.chdir(here)
        labels = torch.arange(2).repeat(20)
        pictures = ImageFileList([root / f"{number}.png" for number in range(40)], root)
        parts = partition(Split(None, labels, pictures=pictures), 3, "t.csv", ["a", "b"])
        seen.append([[Path(path).name for path in part.pictures.paths.tolist()] for part in parts])
    assert seen[0] == seen[1] == seen[2]


def test_a_final_run_trains_on_the_held_out_images_too(cifar10_root):
    usual, final = (ImageData("cifar10", root=str(cifar10_root), train_split=each) for each in ("train", "train+val"))
    for data in (usual, final):
        data.prepare_data()
    train, val = usual.splits["train"], usual.splits["val"]
    assert (len(train), len(val), len(final.splits["train"])) == (180, 20, 200)
    assert torch.equal(final.splits["train"].images, torch.cat([train.images, val.images]))
    assert torch.equal(final.splits["train"].labels, torch.cat([train.labels, val.labels]))
    assert final.splits["test"].labels.tolist() == usual.splits["test"].labels.tolist()


def test_images_that_are_not_held_out_of_others_are_not_trained_on():
    with pytest.raises(UserError, match=r"data\.train_split=train\+val is for data sets that hold"):
        ImageData("coins", train_split="train+val").prepare_data()


@pytest.mark.parametrize("held_out", [0.001, 0.1, 0.3, 0.49])
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("count", [3, 4, 6, 30])
def test_every_part_has_an_image_of_every_class(held_out: float, parts: int, count: int):
    names, labels = ["cat", "dog"], torch.tensor([0] * count + [1] * 7)
    pictures = ImageFileList([f"/pictures/{number}.jpg" for number in range(count + 7)], Path("/pictures"))
    found = partition(Split(None, labels, pictures=pictures), parts, "pictures", names, held_out)
    assert sum(len(part.labels) for part in found) == count + 7
    for part in found:
        assert part.labels.unique().tolist() == [0, 1]
