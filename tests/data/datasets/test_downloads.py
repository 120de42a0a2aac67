import os
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.data.datasets.test_torchvision import make_eurosat, make_imagenette
from vit_attn.data.datasets.downloads import by_hand
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.errors import UserError

TO_DO = re.compile(r"download (\S+) to (.+) and start again, or name the folder")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imagenette", "imagenette2.tgz"),
        ("flowers102", "flowers-102/102flowers.tgz"),
        ("fashionmnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
        ("caltech101", "caltech101/caltech-101.zip"),
    ],
)
def test_a_failed_download_names_the_address_and_the_file_to_put_there(name: str, file: str, tmp_path: Path):
    root = tmp_path / "new"
    with pytest.raises(UserError, match="the download failed") as caught:
        DATASETS[name].load(root, True)
    assert "\n" not in str(caught.value)
    ((address, path),) = TO_DO.findall(str(caught.value))
    assert address.startswith("http")
    assert address.endswith(file.rpartition("/")[2])
    assert Path(path) == root / file


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "make", "format_", "counts"),
    [("imagenette", make_imagenette, "gztar", (10, 10)), ("eurosat", make_eurosat, "zip", (30, 10))],
)
def test_an_archive_put_where_the_message_says_is_unpacked_and_found(
    name: str, make: Callable[[Path], None], format_: str, counts: tuple[int, int], tmp_path: Path, monkeypatch
):
    make(tmp_path / "made")
    with pytest.raises(UserError) as caught:
        DATASETS[name].load(tmp_path / "root", True)
    ((_, path),) = TO_DO.findall(str(caught.value))
    Path(path).parent.mkdir(parents=True)
    unpacked = tmp_path / "made" / Path(path).parent.relative_to(tmp_path / "root")
    shutil.move(shutil.make_archive(str(tmp_path / "packed"), format_, unpacked), path)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda path, _md5=None: os.path.isfile(path))
    found = DATASETS[name].load(tmp_path / "root", True)
    assert (len(found["train"]), len(found["val"])) == counts


def test_an_error_without_an_address_has_nothing_to_do_by_hand():
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("gdown is required")
    assert by_hand(caught.value) == ""
