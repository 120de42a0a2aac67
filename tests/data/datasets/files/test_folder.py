import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vit_attn.data import ImageData
from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.files.listing import pictures_in
from vit_attn.data.datasets.registry import find_dataset
from vit_attn.errors import UserError


def load(root: Path):
    source = folder_source(root)
    return source, source.load(root, False)


def paths(split) -> set[str]:
    return set(split.pictures.paths.tolist())


def test_sub_folders_are_classes_and_every_class_is_shared_out(picture_folder):
    source, splits = load(picture_folder({"cat": 20, "dog": 10, "eel": 3}))
    assert source.class_names == ("cat", "dog", "eel")
    counts = {name: split.labels.bincount().tolist() for name, split in splits.items()}
    assert counts == {"train": [16, 8, 1], "val": [2, 1, 1], "test": [2, 1, 1]}
    together = [path for split in splits.values() for path in split.pictures.paths]
    assert len(set(together)) == len(together) == 33


def test_the_same_pictures_are_held_out_every_time(picture_folder):
    root = picture_folder()
    once, again = (paths(ImageData("folder", str(root), seed=seed).source.load(root, False)["val"]) for seed in (0, 7))
    assert once == again


def test_labels_stay_with_their_pictures(picture_folder):
    source, splits = load(picture_folder())
    for split in splits.values():
        named = [Path(path).parent.name for path in split.pictures.paths]
        assert named == [source.class_names[label] for label in split.labels]


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_folders_of_splits_are_taken_as_they_are(picture_folder, name: str):
    picture_folder({"cat": 4, "dog": 5}, "all/train")
    picture_folder({"cat": 2, "dog": 1}, f"all/{name}")
    _, splits = load(picture_folder({"cat": 1, "dog": 3}, "all/test").parent)
    counts = {name: split.labels.bincount().tolist() for name, split in splits.items()}
    assert counts == {"train": [4, 5], "val": [2, 1], "test": [1, 3]}


def test_without_a_test_folder_the_validation_images_stand_in(picture_folder, caplog):
    picture_folder({"cat": 4, "dog": 5}, "all/train")
    root = picture_folder({"cat": 2, "dog": 1}, "all/val").parent
    data = ImageData("folder", str(root), img_size=8)
    with caplog.at_level("INFO"):
        data.setup("test")
    assert "folder has no test images: the validation images are used instead" in caplog.text
    assert data.splits["test"].labels.tolist() == [0, 0, 1]


def test_training_and_test_folders_leave_validation_to_be_held_out(picture_folder):
    picture_folder({"cat": 10, "dog": 20}, "all/train")
    _, splits = load(picture_folder({"cat": 1, "dog": 1}, "all/test").parent)
    assert {name: len(split) for name, split in splits.items()} == {"train": 27, "val": 3, "test": 2}


@pytest.mark.parametrize("name", ["train", "test", "dev"])
def test_a_class_may_be_called_as_a_split_is(picture_folder, name: str):
    source, splits = load(picture_folder({"cat": 3, "dog": 3, name: 3}))
    assert source.class_names == tuple(sorted(("cat", "dog", name)))
    assert sum(len(split) for split in splits.values()) == 9
    assert source.remarks == [f"{name} is treated as a class, since pictures are directly in it"]


def test_what_is_left_out_beside_the_splits_is_told(picture_folder):
    for split in ("train", "val", "extra"):
        root = picture_folder({"cat": 3, "dog": 3}, f"all/{split}").parent
    source, splits = load(root)
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "val": 6}
    assert source.remarks == ["left out next to the splits: extra (6)"]


def test_pictures_in_deeper_folders_are_found_and_litter_is_not(picture_folder):
    root = picture_folder({"cat": 3, "dog": 3})
    (root / "cat" / "deep").mkdir()
    (root / "cat" / "00.png").rename(root / "cat" / "deep" / "00.png")
    (root / ".cache").mkdir()
    for litter in (".DS_Store", "cat/Thumbs.db", "cat/.hidden.png"):
        (root / litter).touch()
    source, splits = load(root)
    assert source.class_names == ("cat", "dog")
    assert sum(len(split) for split in splits.values()) == 6
    assert source.remarks == ["left out 3 files: 1 .DS_Store, 1 Thumbs.db, 1 hidden"]


def test_a_link_back_to_a_folder_is_not_followed_in_circles(picture_folder):
    root = picture_folder({"cat": 10, "dog": 10})
    (root / "cat/again").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat/elsewhere").symlink_to(root / "dog", target_is_directory=True)
    _, splits = load(root)
    assert sum(len(split) for split in splits.values()) == 10 + 10 + 10


def test_links_between_two_folders_are_not_followed_in_circles(picture_folder):
    root = picture_folder({"cat": 3, "dog": 4})
    (root / "cat/dogs").symlink_to(root / "dog", target_is_directory=True)
    (root / "dog/cats").symlink_to(root / "cat", target_is_directory=True)
    assert [len(pictures_in(root / name)[0]) for name in ("cat", "dog")] == [7, 7]
    (root / "cat/all").symlink_to(root, target_is_directory=True)
    assert len(pictures_in(root / "cat")[0]) == 7


def test_nothing_in_the_folder_is_changed(picture_folder):
    root = picture_folder()
    (root / "dark" / "bad.png").write_text("no image")

    def state() -> list[tuple]:
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))]

    before = state()
    data = ImageData("folder", str(root), img_size=8, skip_corrupt=True, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    assert state() == before


def empty_class(root: Path) -> None:
    (root / "zebra").mkdir()


def one_class(root: Path) -> None:
    for name in ("dark", "middle"):
        (root / name).rename(root.parent / name)


def no_class(root: Path) -> None:
    one_class(root)
    for path in (root / "bright").iterdir():
        path.rename(root / path.name)
    (root / "bright").rmdir()


def few_images(root: Path) -> None:
    for path in sorted((root / "dark").iterdir())[2:]:
        path.unlink()


def other_classes(root: Path) -> None:
    for split, names in {"train": ("bright", "dark"), "val": ("bright", "middle")}.items():
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            (folder / "a.png").write_bytes((root / name / "00.png").read_bytes())
    for name in ("bright", "dark", "middle"):
        (root / name).rename(root.parent / name)


def splits_without_classes(root: Path) -> None:
    one_class(root)
    (root / "bright").rename(root / "train")
    (root.parent / "dark").rename(root / "test")


def misspelt_training(root: Path) -> None:
    for split in ("trian", "val"):
        for name in ("bright", "dark"):
            (root / split / name).mkdir(parents=True)
            (root / split / name / "a.png").write_bytes((root / name / "00.png").read_bytes())
    for name in ("bright", "dark", "middle"):
        (root / name).rename(root.parent / name)


def no_training(root: Path) -> None:
    misspelt_training(root)
    (root / "trian").rename(root / "test")


def no_such_folder(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, r"class folder .*zebra is empty: put images there, or remove it"),
        (one_class, r"has one class only, 'bright': a classifier needs at least two sub-folders"),
        (no_class, r"no classes in .*pictures: put the images of each class into a sub-folder of its name"),
        (few_images, r"class 'dark' of .*pictures has 2 images, too few to split in 3 parts"),
        (other_classes, r"pictures/val has the class 'middle', which training has not, so the network cannot name it"),
        (splits_without_classes, r"no classes in .*pictures/train: put the images of each class into a sub-folder"),
        (misspelt_training, r"pictures has val, the folder of a split, but no train, did you mean 'trian'\?$"),
        (no_training, r"pictures has val, the folder of a split, but no train$"),
        (no_such_folder, r"folder .*pictures cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_a_line(picture_folder, spoil, message):
    root = picture_folder()
    spoil(root)
    with pytest.raises(UserError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_read_is_named(picture_folder, monkeypatch: pytest.MonkeyPatch):
    root, real = picture_folder(), os.scandir

    def refuse(path):
        if Path(path).name in ("dark", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"folder .*dark cannot be read: Permission denied"):
        load(root)
    (root / "dark").rename(root / "lost+found")
    assert load(root)[0].class_names == ("bright", "middle")


def test_a_folder_has_to_be_named():
    with pytest.raises(UserError, match=r"folder needs to know where: --data.root names the folder"):
        find_dataset("folder")


def test_classes_and_sizes_are_known_before_a_picture_is_read(picture_folder):
    root = picture_folder()
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    data = ImageData("folder", str(root))
    assert (data.num_classes, data.img_size, data.in_chans) == (3, (224, 224), 3)
    assert data.class_names == ("bright", "dark", "middle")
    assert ImageData("folder", str(root), img_size=48, channels=1).img_size == (48, 48)


def test_pictures_of_any_size_and_mode_become_pixels_of_their_class(picture_folder):
    data = ImageData("folder", str(picture_folder()), img_size=12, batch_size=4)
    data.setup("fit")
    images, labels = data.splits["train"].decoded(), data.splits["train"].labels
    assert images.shape == (24, 3, 12, 12)
    greys = torch.stack([images[labels == label].float().mean() for label in range(3)])
    assert np.allclose(greys, [220, 30, 120], atol=4)
