"""Workers can be started in any way: nothing of what they receive needs to be forked."""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.data.readers.reader_hfds import ReaderHfds
from torch.testing import assert_close

from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.loading.streams import collate as collate_items

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(  # webdataset leaves its tar files open
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


def csv_of(root: Path) -> Path:
    table = root / "pictures.csv"
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.*"))]
    table.write_text("\n".join(["path,label", *rows]))
    return table


@pytest.fixture
def data_of(picture_folder, cifar10_root: Path, shards: Path, tmp_path: Path) -> Callable[[str], ImageData]:
    """A data set of each kind, read by workers."""

    def make(kind: str) -> ImageData:
        if kind in ("hfds", "hfids"):
            pytest.importorskip("datasets").disable_progress_bars()
        name, root = kind, picture_folder({"bright": 20, "dark": 20}, "own/train")
        picture_folder({"bright": 5, "dark": 5}, "own/validation", seed=1)
        if kind == "wds":
            pytest.importorskip("webdataset")
            name, root = "wds/photos", shards
        elif kind in ("hfds", "hfids"):
            name, root = f"{kind}/{root.parent}", tmp_path / "cache"
        elif kind in ("csv", "cifar10"):
            root = csv_of(root) if kind == "csv" else cifar10_root
        options = {"img_size": 8, "batch_size": 4, "loader": "workers", "normalize": "imagenet", "num_workers": 2}
        data = ImageData(name, str(root), **options)
        data.setup("fit")
        return data

    return make


HUB = pytest.mark.skipif(not hasattr(ReaderHfds, "iter_targets"), reason="timm before 1.0.31 does not read such sets")


@pytest.mark.parametrize(
    "kind",
    ["coins", "cifar10", "folder", "csv", pytest.param("hfds", marks=HUB), pytest.param("hfids", marks=HUB), "wds"],
)
def test_what_a_worker_receives_is_the_same_after_it_was_sent(data_of, kind: str):
    data = data_of(kind)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader()}
    for loader in (each.batches.loader for each in loaders.values()):
        images, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        assert collate is collate_items or loader.batch_size is None
        if isinstance(loader.dataset, torch.utils.data.IterableDataset):
            assert_close(next(iter(images))[0], next(iter(loader.dataset))[0])
        else:
            some = torch.tensor([1, 0, 2])
            assert_close(images[some], loader.dataset[some])
    assert len(pickle.loads(pickle.dumps(data.splits["val"]))) == len(data.splits["val"])


@pytest.mark.parametrize("name", DATASETS)
def test_a_source_can_be_sent_before_a_file_is_read(name: str):
    source = pickle.loads(pickle.dumps(DATASETS[name]))
    assert source.class_names == DATASETS[name].class_names


WITHOUT_FORK = """
import sys, warnings
import torch
from vit_attn.data import ImageData

if __name__ == "__main__":
    method, where, *sets = sys.argv[1:]
    torch.multiprocessing.set_start_method(method)  # the platform's own way is this one on macOS
    found = {}
    for each in sets:
        name, root = each.split("=")
        data = ImageData(name, root, img_size=8, batch_size=4, loader="workers", normalize="imagenet", num_workers=2)
        data.setup("fit")
        found[name] = list(data.train_dataloader())
    torch.save(found, where)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_start_in_every_way(picture_folder, shards: Path, tmp_path: Path, method: str):
    pytest.importorskip("webdataset")
    (tmp_path / "main.py").write_text(WITHOUT_FORK)
    root = picture_folder({"bright": 20, "dark": 20}, "here")
    call = [str(tmp_path / "main.py"), method, str(tmp_path / "found.pt"), f"folder={root}", f"wds/photos={shards}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *call], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    options = {"img_size": 8, "batch_size": 4, "loader": "workers", "normalize": "imagenet", "num_workers": 2}
    for name, batches in torch.load(tmp_path / "found.pt").items():
        data = ImageData(name, str(shards if name.startswith("wds") else root), **options)
        data.setup("fit")
        assert_close(list(data.train_dataloader()), batches, rtol=0, atol=0)
