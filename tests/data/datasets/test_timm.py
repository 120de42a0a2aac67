import gc
import io
import os
import sys
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from timm.data.readers.reader_hfds import ReaderHfds

from vit_attn.data import ImageData
from vit_attn.data.datasets import streams
from vit_attn.data.datasets.registry import DATASETS, find_dataset
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.datasets.timm import split_names
from vit_attn.data.loading.streams import ShardedStream
from vit_attn.data.transforms.host import CentreCrop
from vit_attn.errors import UserError

pytestmark = pytest.mark.filterwarnings(  # webdataset leaves its tar files open
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


def of(folder: Path, **options) -> ImageData:
    pytest.importorskip("webdataset")
    return ImageData("wds/photos", root=str(folder), img_size=8, batch_size=4, **options)


def labelled_right(images: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether dark images, of pixels or normalised, have label 1."""
    middle = 128 if images.dtype == torch.uint8 else 0
    return torch.equal(images.float().mean(dim=(1, 2, 3)) < middle, labels == 1)


def test_tar_files_tell_their_classes_and_splits_before_a_picture_is_read(shards: Path):
    data = of(shards)
    assert (data.num_classes, data.class_names) == (2, ("bright", "dark"))
    data.prepare_data()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "val": 16, "test": 16}
    (shards / "classes.txt").unlink()
    assert of(shards).class_names == ("class 0", "class 1")


def test_tar_files_are_decoded_into_memory(shards: Path):
    data = of(shards, loader="memory", balance="loss")
    data.setup("fit")
    split = data.splits["train"]
    assert split.decoded().shape == (24, 3, 8, 8)
    assert labelled_right(split.decoded(), split.labels)
    assert len(data.class_weights) == 2
    probe = data.probe(5)
    assert labelled_right(probe.images, probe.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_tar_files_are_streamed_by_workers(shards: Path, workers: int):
    data = of(shards, loader="workers", num_workers=workers)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 6
    assert all(images.shape == (4, 3, 8, 8) and labelled_right(images, labels) for images, labels in batches)
    again = list(data.train_dataloader())
    assert all(
        torch.equal(a, b)
        for one, two in zip(batches, again, strict=True)
        for a, b in zip(one[:2], two[:2], strict=True)
    )
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 16
    assert len(data.probe(3).labels) == 3


def spoil_images(shard: Path, count: int) -> None:
    """Damages the first images of a tar file, where they stand."""
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        images = [member for member in tar if not member.name.endswith(".cls")]
    for member in images[:count]:
        content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    shard.write_bytes(content)


def test_corrupt_images_of_tar_files_end_the_run_or_are_counted(shards: Path, caplog):
    spoil_images(shards / "photos-train-01.tar", 3)
    line = "3 of the 24 training images of wds/photos"
    with pytest.raises(UserError, match=f"^{line} cannot be read; skip with --data.skip_corrupt=true$"):
        of(shards, loader="memory").setup("fit")
    data = of(shards, loader="memory", skip_corrupt=True)
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert f"skip_corrupt: left out {line}" in caplog.messages
    assert len(data.splits["train"].decoded()) == 21


def test_streams_cannot_be_balanced_by_sampling(shards: Path):
    data = of(shards, loader="workers", balance="sampling", num_workers=0)
    data.setup("fit")
    with pytest.raises(UserError, match="balance=sampling cannot choose among the images of wds/photos: set loader"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: folder.rename(folder.with_name("gone")),
            r"no such folder: .*shards; name the folder of the tar",
        ),
        (lambda folder: (folder / "photos-val-00.tar").unlink(), r"no tar file in .*shards has 'val' in its name"),
        (lambda folder: (folder / "photos-val-00.tar").write_text("x" * 2000), r"val-00.tar is not a whole tar file"),
        (
            lambda folder: (folder / "photos-val-00.tar").rename(folder / "val-train-00.tar"),
            r"the name of .*val-train-00.tar has the words of 2 splits: train, val",
        ),
        (lambda folder: (folder / "classes.txt").write_text("one"), r"classes.txt names 1 classes, but .* up to 1"),
    ],
)
def test_what_is_wrong_with_tar_files_is_said_in_a_line(shards: Path, spoil, message):
    spoil(shards)
    with pytest.raises(UserError, match=message):
        of(shards)


HUB = pytest.mark.skipif(not hasattr(ReaderHfds, "iter_targets"), reason="timm before 1.0.31 does not read such sets")


@HUB
def test_a_set_of_the_hub_is_read_by_number(picture_folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    root = picture_folder({"bright": 10, "dark": 20})
    data = ImageData(f"hfds/{root}", root=str(tmp_path / "cache"), img_size=8, batch_size=4, balance="loss")
    assert data.class_names == ("bright", "dark")
    data.setup("fit")
    assert {name: split.labels.bincount().tolist() for name, split in data.splits.items()} == {
        "train": [8, 16],
        "val": [1, 2],
        "test": [1, 2],
    }
    assert labelled_right(data.splits["train"].decoded(), data.splits["train"].labels)
    assert data.class_weights == pytest.approx([4 / 3, 2 / 3])


class Numbered:
    """A split of the hub's, whose test labels are hidden."""

    class_to_idx: ClassVar = {"cat": 0, "dog": 1}

    def __init__(self, split: str, splits: tuple[str, ...]):
        self.dataset = type("Dataset", (), {"info": type("Info", (), {"splits": splits})})
        self.reader, self.targets = self, [-1] * 4 if split == "test" else [0, 1] * 5

    def iter_targets(self):
        return iter(self.targets)


@pytest.mark.parametrize(
    ("splits", "counts", "tested_on"),
    [
        (("train", "validation", "test"), {"train": 10, "val": 10, "test": 10}, "val"),
        (("train", "test"), {"train": 6, "val": 2, "test": 2}, "test"),
    ],
)
def test_a_test_split_with_hidden_labels_is_left_out(splits, counts, tested_on, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "create_dataset", lambda _name, split, **_options: Numbered(split, splits))
    data = ImageData("hfds/pets", img_size=4, batch_size=2)
    data.prepare_data()
    assert {name: len(split) for name, split in data.splits.items()} == counts
    assert data.cache.tested_on == tested_on
    assert data.remarks == ["test has no classes and is left out (4 images)"]


def test_images_of_the_hub_without_a_label_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    reader = Numbered("train", ("train",))
    reader.targets = [0, 1, -1, 1, 0, 1, None, 0]
    monkeypatch.setattr(streams, "create_dataset", lambda _name, **_options: reader)
    data = ImageData("hfds/pets", img_size=4, batch_size=2)
    data.prepare_data()
    every = [(int(i), int(label)) for s in data.splits.values() for i, label in zip(s.pictures.indices, s.labels)]  # noqa: B905
    assert sorted(every) == [(0, 0), (1, 1), (3, 1), (4, 0), (5, 1), (7, 0)]
    assert data.remarks == ["left out 2 images without a label in train"]


def test_a_test_of_tar_files_without_labels_is_left_out(shards: Path):
    with tarfile.open(shards / "photos-test-00.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.png"))
    data = of(shards)
    data.cache.load(False)
    assert (data.cache.tested_on, data.remarks) == ("val", ["test has no classes and is left out"])


def test_a_class_that_tar_files_of_training_lack_is_told_or_refused(shards: Path):
    (shards / "classes.txt").write_text("bright\ndark\nmiddle\n")
    data = of(shards)
    data.cache.load(False)
    assert data.remarks == ["training has no middle"]
    with tarfile.open(shards / "photos-test-00.tar", "w") as tar:
        info = tarfile.TarInfo("0.cls")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"2"))
    with pytest.raises(UserError, match=r"the test images have classes that training has none of, middle"):
        of(shards).cache.load(False)


class Info:
    splits: ClassVar = {"train": 1, "validation": 2, "other": 3}


class Reader:
    """Of a set that is read from its beginning, as timm's are."""

    class_to_idx: ClassVar = {"dog": 1, "cat": 0}
    num_samples = 6

    def __init__(self):
        self.builder = type("Builder", (), {"info": Info})


class Opened(list):
    def __init__(self):
        pictures = [(np.full((9, 11, 3), 40 * number, np.uint8), number % 2) for number in range(6)]
        super().__init__(pictures)
        self.reader = Reader()


@pytest.mark.parametrize("prefix", ["hfids", "tfds"])
def test_other_streams_are_opened_through_timm(prefix: str, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def create(name, **options):
        calls.append((name, options["root"], options["split"], options["input_img_mode"]))
        return Opened()

    monkeypatch.setattr(streams, "create_dataset", create)
    data = ImageData(f"{prefix}/pets", img_size=4, batch_size=2)
    assert data.class_names == ("cat", "dog")
    data.setup("fit")
    mode = "RGB" if prefix == "tfds" else ""
    assert {call[2] for call in calls} == {"train", "validation"}
    assert all(call == (f"{prefix}/pets", None, call[2], mode) for call in calls)
    assert data.splits["train"].decoded()[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert data.splits["train"].labels.tolist() == [0, 1] * 3


class Spoiled(Opened):
    """Of which one picture cannot be read, and then the reader fails."""

    def __init__(self, fails: bool):
        super().__init__()
        self[3], self.fails = ("no picture", 1), fails

    def __iter__(self):
        for number, item in enumerate(super().__iter__()):
            if self.fails and number == 3:
                raise OSError("broken pipe\nand much more")
            yield item

    def set_epoch(self, epoch: int):
        pass

    def set_loader_cfg(self, num_workers: int):
        pass


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (False, ".*image.* of hfids/pets cannot be read as an image: .*"),
        (True, "hfids/pets cannot be read to its end: broken pipe"),
    ],
)
def test_what_a_stream_cannot_read_is_a_line(fails: bool, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "create_dataset", lambda *_args, **_options: Spoiled(fails))
    with pytest.raises(UserError, match=f"^{message}$"):
        ImageData("hfids/pets", img_size=4, batch_size=2, loader="memory").setup("fit")
    data = ImageData("hfids/pets", img_size=4, batch_size=4, loader="workers", num_workers=1, normalize="imagenet")
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        with pytest.raises(UserError, match=f"^{message}; repair or remove it, or skip with --data.skip_corrupt=true$"):
            list(loader)


def test_a_corrupt_picture_of_a_stream_can_be_left_out_in_memory(monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(streams, "create_dataset", lambda *_args, **_options: Spoiled(False))
    data = ImageData("hfids/pets", img_size=4, batch_size=2, loader="memory", skip_corrupt=True)
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert data.splits["train"].decoded()[:, 0, 0, 0].tolist() == [0, 40, 80, 160, 200]
    assert "skip_corrupt: left out 1 of the 6 training images of hfids/pets" in caplog.messages


def test_a_set_without_validation_images_gets_them_where_it_can_be_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Info, "splits", {"train": 1, "test": 2})
    monkeypatch.setattr(streams, "create_dataset", lambda *_args, **_options: Opened())
    splits = find_dataset("tfds/pets").load(Path(), False)
    assert {name: split.stream.split for name, split in splits.items()} == {
        "train": "train[:90%]",
        "val": "train[90%:]",
        "test": "test",
    }
    with pytest.raises(UserError, match="hfids/pets has no validation split; hfds/"):
        find_dataset("hfids/pets")
    assert split_names(Reader()) == {"train": "train", "test": "test"}


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("hfds/a", "datasets", r"'vit_attn\[data\]'"),
        ("hfids/a", "datasets", r"'vit_attn\[data\]'"),
        ("tfds/a", "tensorflow-datasets", "tensorflow-datasets"),
    ],
)
def test_a_package_that_is_not_installed_is_named(name: str, package: str, install: str, monkeypatch, capsys):
    for module in list(sys.modules):
        if module.startswith("timm.data.readers.reader_"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(UserError, match=f"{name} needs {package}, which is not installed: pip install {install}$"):
        find_dataset(name)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise ConnectionError("Couldn't reach 'a' on the Hub\nand much more")

    monkeypatch.setattr(streams, "create_dataset", refuse)
    with pytest.raises(UserError, match=r"hfds/a cannot be opened, split 'train': Couldn't reach 'a' on the Hub$"):
        find_dataset("hfds/a")


def test_torch_is_another_way_to_say_torchvisions_names(picture_folder):
    assert find_dataset("torch/fashion_mnist") is DATASETS["fashionmnist"]
    assert find_dataset("torch/image_folder", picture_folder()).class_names == ("bright", "dark", "middle")
    with pytest.raises(UserError, match="unknown data set 'cifar12', did you mean 'cifar1"):
        find_dataset("torch/cifar12")


def test_each_device_has_all_of_a_stream_in_its_memory(shards: Path, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda *_: 1)
    data = of(shards, loader="memory")
    data.setup("fit")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "val": 16, "test": 16}


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [5, 16, 17, 25])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_measure_every_image_of_a_stream_once_in_as_many_batches(monkeypatch, ranks: int, count: int, size: int):
    class Items(list):
        reader = Reader()

    picture = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(streams, "create_dataset", lambda *_, **__: Items([(picture, i) for i in range(count)]))
    stream = Stream("hfids/a", None, "val", count)
    found = [list(ShardedStream(stream, CentreCrop((4, 4)), 3, size, ranks, rank)) for rank in range(ranks)]
    assert {len(batches) for batches in found} == {-(-count // (ranks * size))}
    assert all(1 <= len(batch.labels) <= size for batches in found for batch in batches)
    assert sorted(int(label) for batches in found for batch in batches for label in batch.labels) == list(range(count))


def test_a_folder_of_tar_files_is_never_a_command(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Webdataset runs what follows ``pipe:``."""
    pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    folder = shards.rename(tmp_path / "pipe:touch ran #")
    of(Path(folder.name), loader="memory").setup("fit")
    assert not (tmp_path / "ran").exists()


@HUB
def test_postscript_in_tar_files_and_on_the_hub_reaches_no_program(
    shards: Path, picture_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("datasets").disable_progress_bars()
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n"
    with tarfile.open(shards / "photos-train-01.tar", "w") as tar:
        for number in range(24):
            for end, content in (("jpg", script), ("cls", b"0")):
                info = tarfile.TarInfo(f"{number:04d}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match="24 of the 36 training images of wds/photos cannot be read"):
        of(shards, loader="memory").setup("fit")
    root = picture_folder({"bright": 10, "dark": 10}, "hub")
    for path in sorted((root / "dark").iterdir()):
        path.write_bytes(script)
    data = ImageData(f"hfds/{root}", root=str(tmp_path / "cache"), img_size=8, batch_size=4)
    with pytest.raises(UserError, match="cannot be read as an image: its kind is unknown"):
        data.setup("fit")
    assert not (tmp_path / "ran").exists()
