import bz2
import json
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS, find_dataset
from vit_attn.data.datasets.torchvision_specs import TORCHVISION_SPECS
from vit_attn.data.loading.workers import DecodingDataset
from vit_attn.data.transforms.host import CentreCrop
from vit_attn.errors import UserError


def picture(path: Path, grey: int, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)


def idx(path: Path, values: np.ndarray) -> None:
    """The format of MNIST's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(shape + values.astype(np.uint8).tobytes())


def mnist_like(root: Path, folder: str, prefix: str, labels: np.ndarray) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28))
    for part in ("train", "test") if prefix else ("train", "t10k"):
        idx(root / folder / "raw" / f"{prefix}{part}-images-idx3-ubyte", pixels)
        idx(root / folder / "raw" / f"{prefix}{part}-labels-idx1-ubyte", labels)
    return pixels


def make_fashionmnist(root: Path) -> None:
    mnist_like(root, "FashionMNIST", "", np.arange(40) % 10)


def make_emnist_letters(root: Path) -> None:
    mnist_like(root, "EMNIST", "emnist-letters-", 1 + np.arange(260) % 26)


def make_eurosat(root: Path) -> None:
    for label, name in enumerate(TORCHVISION_SPECS["eurosat"].classes):
        for number in range(5):
            picture(root / "eurosat" / "2750" / name / f"{number}.jpg", 20 * label, (64, 64))


def make_oxfordiiitpet(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for part in ("trainval", "test"):
        names = [
            (f"{part}_{chr(97 + label // 26)}{chr(97 + label % 26)}_{n}", label) for label in range(37) for n in "123"
        ]
        for name, label in names:
            picture(base / "images" / f"{name}.jpg", 6 * label)
        (base / "annotations").mkdir(exist_ok=True)
        lines = [f"{name} {label + 1} 1 1" for name, label in names]
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines))


def make_gtsrb(root: Path) -> None:
    for label in range(43):
        for number in range(3):
            picture(root / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}" / f"{number}.ppm", 5 * label)
    rows = [f"{label:05d}.ppm;{label}" for label in range(43)]
    for label in range(43):
        picture(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / f"{label:05d}.ppm", 5 * label)
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(["Filename;ClassId", *rows]))


def make_food101(root: Path) -> None:
    meta = root / "food-101" / "meta"
    meta.mkdir(parents=True)
    classes = [f"dish{label:03d}" for label in range(101)]
    for part, count in (("train", 3), ("test", 1)):
        named = {name: [f"{name}/{part}{number}" for number in range(count)] for name in classes}
        (meta / f"{part}.json").write_text(json.dumps(named))
        for label, name in enumerate(classes):
            for each in named[name]:
                picture(root / "food-101" / "images" / f"{each}.jpg", 2 * label, (4, 4))


def make_imagenette(root: Path) -> None:
    for part in ("train", "val"):
        for label, wnid in enumerate(datasets.Imagenette._WNID_TO_CLASS):
            picture(root / "imagenette2" / part / wnid / "0.jpeg", 20 * label)


def make_caltech101(root: Path) -> None:
    base = root / "caltech101"
    (base / "Annotations").mkdir(parents=True)
    for label, name in enumerate(["BACKGROUND_Google", *(f"thing{number:03d}" for number in range(101))]):
        for number in (1, 2, 3):
            picture(base / "101_ObjectCategories" / name / f"image_{number:04d}.jpg", 2 * label, (4, 4))


def make_pcam(root: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (root / "pcam").mkdir()
    for part in datasets.PCAM._FILES.values():
        pixels = np.repeat([10, 90], 3)[:, None, None, None] * np.ones((6, 96, 96, 3))
        for kind, key, values in (("images", "x", pixels), ("targets", "y", np.repeat([0, 1], 3)[:, None, None, None])):
            with h5py.File(root / "pcam" / part[kind][0], "w") as file:
                file[key] = values.astype(np.uint8)


def make_kmnist(root: Path) -> None:
    mnist_like(root, "KMNIST", "", np.arange(40) % 10)


def make_qmnist(root: Path) -> None:
    labels = np.zeros((40, 8), dtype=">i4")
    labels[:, 0] = np.arange(40) % 10
    for part in ("train", "test"):
        folder = root / "QMNIST" / "raw"
        idx(folder / f"qmnist-{part}-images-idx3-ubyte", np.zeros((40, 28, 28)))
        (folder / f"qmnist-{part}-labels-idx2-int").write_bytes(
            struct.pack(">HBB2I", 0, 12, 2, 40, 8) + labels.tobytes()
        )


def make_usps(root: Path) -> None:
    lines = [f"{1 + n % 10} " + " ".join(f"{i}:{n % 10 / 5 - 1}" for i in range(1, 257)) for n in range(40)]
    for name in ("usps.bz2", "usps.t.bz2"):
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def make_stl10(root: Path) -> None:
    labels = np.arange(40) % 10
    pixels = np.broadcast_to((20 * labels)[:, None, None, None], (40, 3, 96, 96))
    (root / "stl10_binary").mkdir()
    for part in ("train", "test"):
        (root / "stl10_binary" / f"{part}_X.bin").write_bytes(pixels.astype(np.uint8).tobytes())
        (root / "stl10_binary" / f"{part}_y.bin").write_bytes((1 + labels).astype(np.uint8).tobytes())


def mat(path: Path, **content: object) -> None:
    """A file of MATLAB's, as the ``loadmat`` of these tests reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def make_svhn(root: Path) -> None:
    labels = 1 + np.arange(40) % 10  # 10 is the digit 0
    pixels = np.broadcast_to(20 * (labels % 10), (32, 32, 3, 40)).astype(np.uint8)
    for part in ("train", "test"):
        mat(root / f"{part}_32x32.mat", X=pixels, y=labels[:, None])


def make_flowers102(root: Path) -> None:
    base, labels = root / "flowers-102", np.repeat(np.arange(102), 3)
    numbers = np.arange(1, 307)
    mat(base / "setid.mat", trnid=numbers[::3], valid=numbers[1::3], tstid=numbers[2::3])
    mat(base / "imagelabels.mat", labels=labels + 1)
    for number, label in zip(numbers, labels, strict=True):
        picture(base / "jpg" / f"image_{number:05d}.jpg", 2 * int(label), (4, 4))


def make_stanfordcars(root: Path) -> None:
    base, classes = root / "stanford_cars", np.array([f"car {label}" for label in range(196)])
    mat(base / "devkit" / "cars_meta.mat", class_names=classes)
    for part, annotations, count in (
        ("train", base / "devkit" / "cars_train_annos.mat", 3),
        ("test", base / "cars_test_annos_withlabels.mat", 1),
    ):
        rows = [{"fname": f"{label}_{n}.jpg", "class": label + 1} for label in range(196) for n in range(count)]
        mat(annotations, annotations=rows)
        for row in rows:
            picture(base / f"cars_{part}" / row["fname"], row["class"] - 1, (4, 4))


def make_dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for part in ("train", "val", "test"):
        names = [f"texture{label:02d}/{part}.jpg" for label in range(47)]
        (base / "labels" / f"{part}1.txt").write_text("\n".join(names))
        for label, name in enumerate(names):
            picture(base / "images" / name, 5 * label, (4, 4))


def make_fgvcaircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    base.mkdir(parents=True)
    classes = [f"plane {label:02d}" for label in range(100)]
    (base / "variants.txt").write_text("\n".join(classes))
    for part in ("train", "val", "test"):
        lines = [f"{part}{label} {name}" for label, name in enumerate(classes)]
        (base / f"images_variant_{part}.txt").write_text("\n".join(lines))
        for label in range(100):
            picture(base / "images" / f"{part}{label}.jpg", 2 * label, (4, 4))


def make_country211(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for label in range(211):
            picture(root / "country211" / part / f"C{label:03d}" / "0.jpg", label, (4, 4))


def make_renderedsst2(root: Path) -> None:
    for part in ("train", "valid", "test"):
        for label, name in enumerate(("negative", "positive")):
            for number in range(3):
                picture(root / "rendered-sst2" / part / name / f"{number}.png", 100 * label)


def make_caltech256(root: Path) -> None:
    for label in range(257):
        for number in (1, 2, 3):
            folder = root / "caltech256" / "256_ObjectCategories" / f"{label + 1:03d}.thing"
            picture(folder / f"{label + 1:03d}_{number:04d}.jpg", label % 256, (4, 4))


def make_sun397(root: Path) -> None:
    names = [f"/s/scene{label:03d}" for label in range(397)]
    for label, name in enumerate(names):
        for number in range(3):
            picture(root / "SUN397" / name[1:] / f"sun_{number}.jpg", label % 256, (4, 4))
    (root / "SUN397" / "ClassName.txt").write_text("\n".join(names))


def make_imagenet(root: Path) -> None:
    names = {f"n{label:08d}": (f"thing {label}", "other name") for label in range(1000)}
    torch.save((names, []), root / "meta.bin")
    for part in ("train", "val"):
        for label, wnid in enumerate(names):
            picture(root / part / wnid / "0.JPEG", label % 256, (4, 4))


MAKERS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("make_"): value for name, value in list(globals().items()) if name.startswith("make_")
}
COUNTS = {
    "fashionmnist": (30, 10, 40),
    "emnist_letters": (234, 26, 260),
    "eurosat": (30, 10, 10),
    "oxfordiiitpet": (74, 37, 111),
    "gtsrb": (86, 43, 43),
    "food101": (202, 101, 101),
    "imagenette": (10, 10),
    "caltech101": (101, 101, 101),
    "pcam": (6, 6, 6),
    "kmnist": (30, 10, 40),
    "qmnist": (30, 10, 40),
    "usps": (30, 10, 40),
    "stl10": (30, 10, 40),
    "svhn": (30, 10, 40),
    "flowers102": (102, 102, 102),
    "stanfordcars": (392, 196, 196),
    "dtd": (47, 47, 47),
    "fgvcaircraft": (100, 100, 100),
    "country211": (211, 211, 211),
    "renderedsst2": (6, 6, 6),
    "caltech256": (257, 257, 257),
    "sun397": (397, 397, 397),
    "imagenet": (1000, 1000),
}


@pytest.fixture(autouse=True)
def _tiny_files_are_whole(monkeypatch: pytest.MonkeyPatch):
    """Checksums are those of the whole data sets; scipy, which reads MATLAB's files, need not be installed."""
    for module in ("stl10", "svhn", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).exists()
        )
    monkeypatch.setattr(datasets.STL10, "train_list", datasets.STL10.train_list[:2])
    reader = ModuleType("scipy.io")
    reader.loadmat = lambda path, squeeze_me=False: pickle.loads(Path(path).read_bytes())
    package = ModuleType("scipy")
    package.io = reader
    monkeypatch.setitem(sys.modules, "scipy", package)
    monkeypatch.setitem(sys.modules, "scipy.io", reader)


@pytest.mark.parametrize("name", MAKERS)
def test_a_data_set_of_torchvisions_is_read_from_its_own_files(name: str, tmp_path: Path):
    MAKERS[name](tmp_path)
    data = ImageData(name, root=str(tmp_path), download=False, batch_size=4, img_size=8)
    data.prepare_data()
    loaded = DATASETS[name].load(tmp_path, False)
    assert tuple(len(loaded[part]) for part in ("train", "val", "test") if part in loaded) == COUNTS[name]
    assert len(data.class_names) == data.num_classes == len(set(data.class_names))
    images = DecodingDataset(loaded["train"], CentreCrop((8, 8)), data.in_chans)
    handed = pickle.loads(pickle.dumps(images))  # as a worker gets it that is not forked
    assert torch.equal(handed[torch.tensor([5])].images, images[torch.tensor([5])].images)
    split = data.cache.ready("train")
    assert split.decoded().shape[1:] == (data.in_chans, 8, 8)
    assert set(split.labels.tolist()) == set(range(data.num_classes))
    if not name.endswith(("mnist", "letters")) and data.num_classes < 256:  # the greys written rise with the label
        greys = torch.stack(
            [split.decoded()[split.labels == label].float().mean() for label in range(data.num_classes)]
        )
        assert (greys.diff() > 0).all()


def test_names_of_classes_come_from_the_files_where_only_they_tell_them(tmp_path: Path):
    make_food101(tmp_path)
    data = ImageData("food101", root=str(tmp_path), download=False)
    assert (data.num_classes, data.class_names[3]) == (101, "class 3")
    data.prepare_data()
    assert (data.num_classes, data.class_names[3]) == (101, "dish003")
    assert data.card.label_names[3] == "dish003"


def test_pictures_of_digits_stay_as_they_are_and_letters_stand_upright(tmp_path: Path):
    written = mnist_like(tmp_path, "MNIST", "", np.arange(40) % 10)
    test = DATASETS["mnist"].load(tmp_path, False)["test"]
    assert torch.equal(test.decoded()[:, 0], torch.from_numpy(written).byte())
    written = mnist_like(tmp_path, "EMNIST", "emnist-balanced-", np.arange(94) % 47)
    test = DATASETS["emnist"].load(tmp_path, False)["test"]
    assert torch.equal(test.decoded()[:, 0], torch.from_numpy(written).byte().mT)


def test_grey_sets_can_be_had_in_colour_and_in_another_size(tmp_path: Path):
    make_fashionmnist(tmp_path)
    data = ImageData("fashionmnist", root=str(tmp_path), download=False)
    assert (data.in_chans, data.img_size, data.statistics.mean) == (1, (28, 28), (0.2860,))
    data = ImageData("fashionmnist", root=str(tmp_path), download=False, channels=3, img_size=32, batch_size=8)
    assert (data.in_chans, data.img_size, data.statistics.mean) == (3, (32, 32), (0.2860,) * 3)
    data.setup("fit")
    images = data.splits["train"].decoded()
    assert images.shape == (30, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])


def test_every_name_is_known_without_files(tmp_path: Path):
    assert {"cifar100", "svhn", "stl10", "flowers102", "dtd", "stanfordcars", "sun397", "imagenet"} < DATASETS.keys()
    for name, source in DATASETS.items():
        data = ImageData(name, root=str(tmp_path))
        assert data.num_classes == len(source.class_names) > 1
        assert source.mean is None or len(source.mean) == data.in_chans
    assert list(tmp_path.iterdir()) == []
    assert (DATASETS["flowers102"].class_names[0], len(DATASETS["gtsrb"].class_names)) == ("pink primrose", 43)


def test_files_that_are_not_there_are_not_downloaded_unasked(tmp_path: Path):
    for name in ("svhn", "dtd", "eurosat", "mnist"):
        with pytest.raises(
            UserError, match=rf"{name} not found in .*; name the folder that holds it with --data\.root"
        ):
            DATASETS[name].load(tmp_path / "none", False)


def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>\nmore")

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", refuse)
    with pytest.raises(UserError, match=r"dtd not found in .*, and the download failed \(<urlopen error") as caught:
        DATASETS["dtd"].load(tmp_path / "new", True)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_needs_a_missing_package_names_it_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    needed = r"the download of pcam needs gdown, which is not installed: pip install 'vit_attn\[data\]'$"
    with pytest.raises(UserError, match=needed):
        DATASETS["pcam"].load(tmp_path / "new", True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def need(*_args, **_options):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(datasets.SVHN, "__init__", need)
    with pytest.raises(UserError, match=r"svhn needs scipy, which is not installed: pip install 'vit_attn\[data\]'$"):
        DATASETS["svhn"].load(tmp_path, False)


@pytest.mark.parametrize(
    ("name", "close"),
    [("Flowers102", "flowers102"), ("fashion-mnist", "fashionmnist"), ("Oxford_IIIT_Pet", "oxfordiiitpet")],
)
def test_other_spellings_are_pointed_to_the_name(name: str, close: str):
    with pytest.raises(UserError, match=f"unknown data set '{name}', did you mean '{close}'"):
        find_dataset(name)


def test_every_set_of_torchvisions_is_tested_on_files_of_its_format():
    assert TORCHVISION_SPECS.keys() == MAKERS.keys() | {"mnist", "emnist"}


def test_a_set_that_is_no_longer_read_says_what_to_do_instead():
    with pytest.raises(UserError, match=r"places365 is no longer read .*: .*--data.dataset=csv"):
        find_dataset("places365")
    with pytest.raises(UserError, match=r"inaturalist is no longer read .*: .*--data.dataset=folder"):
        find_dataset("torch/inaturalist")
