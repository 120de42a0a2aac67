import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vit_attn.data.datasets.files.folder import folder_source
from vit_attn.data.datasets.remarks import Doubt
from vit_attn.errors import UserError

PIXEL = Image.new("RGB", (1, 1))


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes folders, by their paths, with that many pictures right in each."""

    def make(counts: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                PIXEL.save(root / folder / f"{number}.png")
        return root

    return make


def found(root: Path) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Class names, images a split and remarks."""
    source = folder_source(root)
    return source.class_names, {k: len(v) for k, v in source.load(root, False).items()}, source.remarks


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAINING", "VALIDATION"),
        ("training_set", "valid_set"),
        ("train_images", "dev-images"),
        ("seg_train", "seg_eval"),
        ("imagenet-train", "imagenet-val"),
        ("trainset", "valset"),
        ("TrainImages", "ValImages"),
        ("train2017", "val2017"),
    ],
)
def test_splits_are_known_by_the_words_in_their_names(tree, train: str, val: str):
    root = tree({f"{train}/cat": 4, f"{train}/dog": 4, f"{val}/cat": 1, f"{val}/dog": 1})
    assert found(root) == (("cat", "dog"), {"train": 8, "val": 2}, [f"train is {train}", f"val is {val}"])


def test_training_set_and_test_set_are_no_classes(tree):
    root = tree({"training_set/cat": 10, "training_set/dog": 10, "test_set/cat": 2, "test_set/dog": 2})
    assert found(root)[:2] == (("cat", "dog"), {"train": 18, "val": 2, "test": 4})


@pytest.mark.parametrize("way", ["mydata", "a/b/c", "test_data", "train_val_pets"])
def test_splits_are_found_in_folders_around_them(tree, way: str):
    root = tree({f"{way}/{split}/{name}": 2 for split in ("train", "val") for name in ("cat", "dog")})
    assert found(root) == (("cat", "dog"), {"train": 4, "val": 4}, [f"read from {root / way}"])


def test_splits_are_found_beside_folders_without_pictures(tree):
    root = tree({"a/b/train/cat": 2, "a/b/train/dog": 2, "a/b/val/cat": 1, "notes": 0, "a/models": 0})
    assert found(root)[1:] == ({"train": 4, "val": 1}, [f"read from {root}/a/b"])


def test_classes_are_found_in_folders_around_them(tree):
    root = tree({"pets/images/cat": 5, "pets/images/dog": 5, "__MACOSX/pets/images/cat": 5})
    said = [f"read from {root}/pets/images", "left out 5 files: 5 in __MACOSX"]
    assert found(root) == (("cat", "dog"), {"train": 6, "val": 2, "test": 2}, said)


def test_a_split_may_have_its_classes_in_a_folder_of_its_own(tree):
    ways = {"seg_train/seg_train": 4, "seg_test/seg_test": 2}
    root = tree({f"{way}/{name}": count for way, count in ways.items() for name in ("cat", "dog")} | {"seg_pred": 3})
    names, counts, remarks = found(root)
    assert (names, counts) == (("cat", "dog"), {"train": 6, "val": 2, "test": 4})
    assert remarks == [
        "train is seg_train/seg_train",
        "test is seg_test/seg_test",
        "left out next to the splits: seg_pred (3)",
    ]


def test_a_vehicle_called_train_is_a_class(tree):
    names, counts, remarks = found(tree({"train": 3, "bus": 3, "boat": 3}))
    assert (names, sum(counts.values())) == (("boat", "bus", "train"), 9)
    assert remarks == ["train is treated as a class, since pictures are directly in it"]
    assert found(tree({"train/steam": 2, "train": 2}))[::2] == (("boat", "bus", "train"), remarks)


def test_names_that_only_hold_the_word_of_a_split_are_classes(tree):
    assert found(tree({"steam_train": 3, "bullet_train": 3, "valid": 3, "invalid": 3}))[0] == (
        "bullet_train",
        "invalid",
        "steam_train",
        "valid",
    )


def test_pictures_of_a_class_may_be_in_a_folder_of_its_own(tree):
    assert found(tree({"cat/images": 3, "dog/images": 4}))[:2] == (("cat", "dog"), {"train": 3, "val": 2, "test": 2})


def test_pictures_of_one_class_may_be_deeper_than_those_of_another(tree):
    assert found(tree({"cat/2020": 3, "dog": 3}))[0] == ("cat", "dog")


@pytest.mark.parametrize(
    ("cats", "dogs"),
    [
        (["photos"], ["photos"]),
        (["photos/2020"], ["photos/2020"]),
        (["photos/1", "photos/2"], ["photos/3", "photos/4"]),
        (["left", "x"], ["left", "y"]),
        (["cat"], ["dog"]),
        (["photos", ""], ["photos"]),
    ],
)
def test_classes_whose_sub_folders_are_not_the_same_stay_classes(tree, cats: list[str], dogs: list[str]):
    root = tree({f"cat/{below}": 3 for below in cats} | {f"dog/{below}": 3 for below in dogs})
    assert found(root)[0] == ("cat", "dog")


def test_words_of_splits_are_classes_within_a_split(tree):
    root = tree({f"train/{name}/{below}": 3 for name in ("test", "control") for below in ("p1", "p2")})
    assert found(root)[:2] == (("control", "test"), {"train": 8, "val": 2, "test": 2})
    root = tree({"train/test/p1": 3, "val/test/p1": 1, "val/control": 1})
    assert found(root)[:2] == (("control", "test"), {"train": 12, "val": 2})


def test_a_class_that_validation_lacks_is_told_and_labels_keep_their_numbers(tree):
    root = tree({"train/cat": 2, "train/dog": 2, "train/owl": 2, "val/owl": 1, "val/dog": 1, "val/cat": 0})
    source = folder_source(root)
    assert source.load(root, False)["val"].labels.tolist() == [1, 2]
    assert source.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("inside", ["test", "test/images", "Test_Images/0"])
def test_a_test_folder_without_classes_is_left_out_and_predict_is_proposed(tree, inside: str):
    top = inside.partition("/")[0]
    names, counts, remarks = found(tree({"train/cat": 10, "train/dog": 10, inside: 5}))
    assert (names, counts) == (("cat", "dog"), {"train": 16, "val": 2, "test": 2})
    said = [each for each in remarks if "no classes" in each]
    assert said[0].startswith(f"{top} has no classes and is left out (5 pictures); `vit-attn predict ")


def test_validation_without_classes_is_held_out_of_training(tree):
    _, counts, remarks = found(tree({"train/cat": 10, "train/dog": 10, "val": 5, "test/cat": 1}))
    assert counts == {"train": 18, "val": 2, "test": 1}
    assert remarks[0].startswith("val has no classes and is left out (5 pictures)")


def test_loose_pictures_and_empty_splits_are_told(tree):
    root = tree({"train/cat": 2, "train/dog": 2, "train": 3, "val/cat": 0, ".": 1})
    said = found(tree({"train/cat": 4, "train/dog": 4}))[2]
    assert said == [
        "val holds no picture",
        f"left out 1 picture in {root}, in no class folder",
        f"left out 3 pictures in {root}/train, in no class folder",
    ]


def test_names_that_look_alike_are_one_class(tree):
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = tree({f"train/{one}": 2, f"train/{other}": 3, "train/thé": 2, f"val/{other}": 1, "val/thé": 1})
    names, counts, remarks = found(root)
    assert (names, counts) == ((one, "thé"), {"train": 7, "val": 2})
    assert remarks == [f"two folders of {root}/train are the class {one!r}, spelt alike"]


def test_numbered_classes_are_in_the_order_of_their_numbers(tree):
    assert found(tree(dict.fromkeys(("10", "2", "0", "11", "1"), 3)))[0] == ("0", "1", "2", "10", "11")


def test_thumbnails_and_notes_are_left_out_and_counted(tree):
    root = tree({"cat": 3, "dog": 3, "cat/@eaDir/0.png": 2, "#recycle/cat": 1, ".thumbnails": 2, "$RECYCLE.BIN": 1})
    (root / "dog/README.txt").touch()
    (root / "dog/._0.png").touch()
    (root / "dog/BIG.PNG").write_bytes((root / "dog/0.png").read_bytes())
    names, counts, remarks = found(root)
    assert (names, sum(counts.values())) == (("cat", "dog"), 7)
    assert remarks == [
        "left out 8 files: 2 in .thumbnails, 2 in @eaDir, 1 ._…, 1 .txt, 1 in #recycle, 1 in $RECYCLE.BIN"
    ]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a/cat": 1, "a/dog": 1, "b/cat": 1, "b/dog": 1}, r"a and b hold the same folders, cat, dog: if they are spl"),
        ({"a/cat": 1, "a/dog": 1, "a/owl": 1, "b/cat": 1, "b/dog": 1}, r"a and b hold the same folders, cat, dog: if"),
        ({"cat/train": 2, "cat/test": 1, "dog/train": 2, "dog/test": 1}, r"splits in each class, such as cat/train: "),
        ({"a/train/c": 1, "a/val/c": 1, "b/train/c": 1, "b/val/c": 1}, r"holds several data sets, a, b: name one with"),
        (
            {"train/c": 1, "train/d": 1, "train_aug/c": 1, "train_aug/d": 1},
            r"two folders of the split train, train and",
        ),
        ({"train/steam": 1, "train/city": 1, "bus": 1, "boat": 1}, r"is train the training split, or a class like boa"),
        ({"cat": 1, "dog": 1, "test_images": 1}, r"test_images is called as a split is, but holds pictures without cl"),
        ({"training_set": 1, "test_set": 1}, r"no classes in .*training_set: put the images of each class into"),
        ({"train": 1, "val/cat": 1}, r"no classes in .*train: put the images of each class into"),
        (
            {"train/cat": 1, "train/dog": 1, "val/Cat": 1, "val/dog": 1},
            r"class 'Cat', which .* did you mean 'cat'\?: a",
        ),
        (
            {"first/cat": 1, "first/dog": 1, "test/cat": 1},
            r"but no train: call the folder of the training images train",
        ),
        ({"mydata/cat": 1}, r"mydata has one class only, 'cat'"),
        ({"cat": 1, "dog": 0}, r"class folder .*dog is empty: put images there, or remove it"),
        ({"train/cat": 1, "train/dog": 0, "val/cat": 1}, r"class folder .*train/dog is empty"),
        (
            {"train/cat": 1, "train/dog": 1, "holdout/cat": 1},
            r"holdout holds the same folders as train: call it val or",
        ),
        (
            {"data/cat": 1, "data/dog": 1, "notes": 0},
            r"has pictures in data only: name it with --data.root=.*photos/data",
        ),
        ({"images/train": 1, "images/val": 1, "labels": 0}, r"no classes in .*images/train: put the images"),
        ({"train/cat": 1, "train/dog": 1, "val/Cat": 1}, r"class 'Cat', which .* did you mean 'cat'"),
        (
            {f"{site}/images/{name}": 1 for site in ("amazon", "dslr") for name in ("bike", "mug")},
            r"amazon and dslr hold the same folders, bike, mug: if they are splits",
        ),
        ({"a": 1, "a/cat": 1, "a/dog": 1, "b/cat": 1, "b/dog": 1}, r"a and b hold the same folders, cat, dog: if they"),
        (
            {"a": 1, "a/train/cat": 1, "a/train/dog": 1, "a/val/cat": 1, "other": 1},
            r"photos holds a data set with splits, a, and other: name it with --data.root=.*photos/a$",
        ),
        ({"learn/cat": 1, "learn/dog": 1, "check/cat": 1}, r"check and learn hold the same folders, cat: if they are "),
        ({"learn/cat/1": 1, "learn/dog": 1, "check/cat/2": 1}, r"check and learn hold the same folders, cat: if they"),
        ({"learn/Cat": 1, "learn/Dog": 1, "check/cat": 1, "check/dog": 1}, r"check and learn hold the same folders, c"),
        ({"A/train/cat": 1, "A/train/dog": 1, "B/val/cat": 1, "B/val/dog": 1}, r"A and B hold the same folders, cat, "),
        ({"A/train/cat": 1, "A/train/dog": 1, "B/val/cat": 1, "notes": 0}, r"A and B hold the same folders, cat: if "),
        (
            {f"{n}/{name}": 1 for n in range(22) for name in ("cat", "dog")} | {"0/owl": 1},
            r"0 and 1 hold the same folders, cat, dog: if they are splits",
        ),
        (
            {"cat": 1, "dog": 1, "holdout/cat": 1, "holdout/dog": 1},
            r"holdout holds folders .* of its siblings, cat,",
        ),
        (
            {"train/cat": 1, "train/dog": 1, "train/more/cat": 1, "val/cat": 1},
            r"photos/train: more holds folders with the names of its siblings, cat: if it",
        ),
        (
            {"a/train/cat": 1, "a/train/dog": 1, "other": 1},
            r"photos holds a data set with splits, a, and other: name it with --data.root=.*photos/a$",
        ),
        ({"cat": 1, "dog": 1, "extra/Cat": 1}, r"extra holds folders with the names of its siblings, cat: if it"),
        (
            {"cat": 1, "dog": 1, "more/images/dog": 1, "more/images/x": 1},
            r"more holds folders .* of its siblings, dog: if it",
        ),
        (dict.fromkeys(("cat_train", "dog_train", "cat_test", "dog_test"), 1), r"make them test/cat and train/cat, or"),
        (dict.fromkeys(("trainA", "trainB", "testA", "testB"), 1), r"testA and trainA are called as splits of classes"),
        (
            dict.fromkeys(("train_cat", "train_owl", "val_dog"), 1),
            r"train_cat and val_dog are .* make them train/cat and val/dog, or",
        ),
        (dict.fromkeys(("cat_train", "cat_test", "owl"), 1), r"cat_test and cat_train are called as splits of classes"),
        (
            {"mydata/train/cat": 1, "mydata/train/dog": 1, "mydata/val/cat": 1, "other": 1},
            r"photos holds a data set with splits, mydata, and other: name it with --data.root=.*photos/mydata$",
        ),
        (
            {"train_station/a": 1, "train_station/b": 1, "bus/a": 1, "bus/c": 1},
            r"is train_station the training split, or a class like bus\? Name the folder",
        ),
        (
            {"train/cat": 1, "train/dog": 1, "val/Cat": 1, "val/Dog": 1},
            r"classes 'Cat', 'Dog', which training has not, so the network cannot name them, did .*: add them to the",
        ),
        ({".cat": 1, "@eaDir": 1}, r"no classes in .*photos: put the images"),
        ({".": 3}, r"no classes in .*photos: put the images"),
    ],
)
def test_what_cannot_be_known_of_a_folder_is_refused_in_a_line(tree, counts, message):
    with pytest.raises(UserError, match=message) as caught:
        folder_source(tree(counts))
    assert "\n" not in str(caught.value)


def test_a_class_folder_without_a_picture_says_what_it_holds(tree):
    root = tree({"cat": 1, "dog": 0})
    (root / "dog/a.heic").touch()
    with pytest.raises(UserError, match=r"dog holds no picture \(left out 1 file: 1 \.heic\): put images there"):
        folder_source(root)


def test_a_folder_that_links_to_itself_is_left_out(tree):
    root = tree({"cat": 3, "dog": 3})
    (root / "owl").symlink_to("owl")
    (root / "cat/up").symlink_to(root, target_is_directory=True)
    names, _, remarks = found(root)
    assert (names, remarks) == (("cat", "dog"), ["left out 2 files: 1 linked to a folder above, 1 without an ending"])


def test_pictures_that_links_put_into_two_splits_are_told(tree):
    root = tree({"train/cat": 3, "train/dog": 3})
    (root / "val").symlink_to(root / "train", target_is_directory=True)
    (root / "train/cat/gone.png").symlink_to("nowhere.png")
    assert found(root)[2] == [f"6 pictures are there more than once, by links, such as {root}/val/cat/0.png"]


def test_photos_of_a_telephone_that_are_not_read_are_a_doubt_and_other_files_are_not(tree):
    root = tree({"cat": 3, "dog": 3})
    (root / "dog/notes.txt").touch()
    assert [type(each) for each in found(root)[2]] == [str]
    for number in range(2):
        (root / f"dog/{number}.HEIC").touch()
    said = found(root)[2]
    assert said == [
        "left out 3 files: 2 .heic, 1 .txt",
        "2 photos are left out, as .heic is not read: convert them to JPEG",
    ]
    assert isinstance(said[1], Doubt)
