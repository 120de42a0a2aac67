import json
from pathlib import Path

import pytest
from PIL import Image

from vit_attn.data import ImageData
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.registry import DATASETS

OPTIONS = {"img_size": 8, "batch_size": 4, "num_workers": 0, "normalize": "imagenet"}


def made(name: str, root: Path, trainer=None, **options) -> ImageData:
    data = ImageData(name, str(root), **(OPTIONS | options))
    data.trainer = trainer
    data.setup("fit")
    return data


@pytest.mark.parametrize("loader", ["memory", "workers"])
@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_the_images_of_a_batch_are_named_by_their_files(picture_folder, trainer_at, loader: str, balance: str):
    root = picture_folder({"bright": 30, "dark": 10})
    data = made("folder", root, trainer_at(2, 1, epoch=3), loader=loader, balance=balance)
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(3)
    plain = ImageData("folder", str(root), **OPTIONS)
    plain.prepare_data()
    paths = plain.splits["train"].pictures
    for number, addresses in enumerate(sampler):
        wanted = [paths.name(address % len(paths)) for address in addresses.tolist()]
        assert data.batch_names(3, number) == wanted
    assert data.batch_names(3, 1) != data.batch_names(2, 1)
    first, *rest = data.batch_names(3, 1, limit=1)
    assert first == data.batch_names(3, 1)[0]
    assert rest == ["and 3 more"]
    with pytest.raises(IndexError):
        data.batch_names(0, 99)


def test_images_without_files_are_numbered(cifar10_root: Path, shards: Path):
    data = made("cifar10", cifar10_root, img_size=None)
    addresses = next(iter(data.train_dataloader().sampler))
    assert data.batch_names(0, 0) == [f"training image {index + 1} of cifar10" for index in addresses.tolist()]
    pytest.importorskip("webdataset")
    data = made("wds/photos", shards, loader="workers")
    assert data.batch_names(2, 5) == ["batch 6 of epoch 3 of wds/photos"]


def test_a_fingerprint_tells_other_images_and_other_names_but_not_another_place(picture_folder, tmp_path: Path):
    root = picture_folder({"bright": 20, "dark": 20})
    found = made("folder", root).fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert found["images"] == {"train": 32, "val": 4, "test": 4}
    assert (found["dataset"], found["class_names"], len(found["files"])) == ("folder", ["bright", "dark"], 16)
    moved = root.rename(tmp_path / "moved")
    assert made("folder", moved).fingerprint() == found
    data = made("folder", moved)
    renamed = Path(data.splits["train"].pictures.name(0))
    renamed.rename(renamed.with_name("another" + renamed.suffix))
    assert made("folder", moved).fingerprint()["files"] != found["files"]


def test_a_fingerprint_tells_other_images_that_are_measured(picture_folder):
    root = picture_folder({"bright": 20, "dark": 20})
    data = made("folder", root)
    found, names = data.fingerprint(), {name: data.splits[name].pictures.name(0) for name in ("val", "test")}
    for split, name in names.items():
        with Image.open(name) as picture:
            other = picture.resize((picture.width + 8, picture.height + 8))
        other.save(name)
        after = made("folder", root).fingerprint()
        assert {key for key in found if after[key] != found[key]} == {f"{split} files"}
        found = after


def test_held_out_images_do_not_depend_on_the_folders_around_the_classes(picture_folder, tmp_path: Path):
    root = picture_folder({"bright": 20, "dark": 20})
    plain = made("folder", root)
    (tmp_path / "around").mkdir()
    root.rename(tmp_path / "around" / root.name)
    wrapped = made("folder", tmp_path / "around")
    for name in ("train", "val", "test"):
        assert plain.splits[name].pictures.keys() == wrapped.splits[name].pictures.keys()


def test_a_fingerprint_reads_no_pictures(picture_folder, cifar10_root: Path, shards: Path):
    root = picture_folder({"bright": 20, "dark": 20}, "others")
    for path in root.rglob("*.*"):
        path.write_text("no picture")
    assert ImageData("folder", str(root), **OPTIONS).fingerprint()["images"]["train"] == 32
    assert ImageData("cifar10", str(cifar10_root)).fingerprint()["files"] is None
    pytest.importorskip("webdataset")
    found = ImageData("wds/photos", str(shards)).fingerprint()
    assert found["images"] == {"train": 24, "val": 16}
    assert len(found["files"]) == 16


def test_names_of_files_begin_at_the_root(tmp_path: Path):
    paths = [tmp_path / "a" / "b.png", tmp_path / "c.png"]
    pictures = ImageFileList(paths, tmp_path)
    assert pictures.keys() == [pictures.key(0), pictures.key(1)] == ["a/b.png", "c.png"]
    linked = ImageFileList([*paths, tmp_path.parent / "d.png"], tmp_path)
    assert linked.keys()[2] == linked.key(2) == "../d.png"


def test_held_out_images_of_torchvisions_sets_do_not_depend_on_their_place(tmp_path: Path, monkeypatch):
    def held(root: Path) -> list[str]:
        for label, name in enumerate(DATASETS["eurosat"].class_names):
            for number in range(20):
                path = root / "eurosat" / "2750" / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (label,) * 3).save(path)
        return [path.rpartition("2750")[2] for path in DATASETS["eurosat"].load(root, False)["val"].pictures.paths]

    first = held(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    assert held(tmp_path / "there" / "below") == first
    assert len(first) == 20
