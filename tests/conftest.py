import io
import os
import pickle
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5

from vit_attn.data.datasets import cifar
from vit_attn.data.datasets import registry as sources

GREYS = {"bright": 220, "dark": 30, "middle": 120}


def pytest_configure():
    """Hear what shells have commands in the background ignore, and ``nohup`` its own, and so all that these begin."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def real_root() -> Path:
    """The folder with the real CIFAR-10, where the environment names one."""
    root = os.environ.get(sources.ROOT_VARIABLE)
    if not root:
        pytest.skip(f"{sources.ROOT_VARIABLE} does not name a folder with CIFAR-10")
    return Path(root)


@pytest.fixture
def cifar10_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 200 training and 40 test images of noise, in CIFAR-10's own files, whose checksums are expected."""
    folder = tmp_path / "cifar" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    for name in names:
        pixels = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(40)]}))
    classes = list(sources.DATASETS["cifar10"].class_names)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    sums = {name: calculate_md5(str(folder / name)) for name in (*names, "batches.meta")}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(cifar, "VALIDATION_IMAGES", 20)
    return folder.parent


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of pictures in unlike sizes, modes and formats; those of a class have about its grey."""

    def make(counts: dict[str, int] | None = None, where: str = "pictures", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for name, count in (counts or dict.fromkeys(GREYS, 10)).items():
            folder = tmp_path / where / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(17, 50, 2)
                noise = rng.integers(-20, 20, (height, width, 3)) + GREYS.get(name, 120)
                image = Image.fromarray(noise.astype(np.uint8))
                image = image.convert(("RGB", "L", "P")[number % 3])
                image.save(folder / f"{number:02d}.{('png', 'jpg')[number % 3 == 1]}")
        return tmp_path / where

    return make


@pytest.fixture
def trainer_at() -> Callable[..., L.Trainer]:
    """Makes a trainer that says what the data asks of it, and nothing else."""

    def make(ranks: int, rank: int, epoch: int = 0, taken: int = 0) -> L.Trainer:
        progress = SimpleNamespace(current=SimpleNamespace(ready=taken))
        loop = SimpleNamespace(batch_progress=progress, total_batch_idx=-1)
        answers = {
            "__init__": lambda self: None,
            "training": True,
            "world_size": ranks,
            "global_rank": rank,
            "num_devices": 1,
            "current_epoch": epoch,
            "global_step": 0,
            "estimated_stepping_batches": 10,
            "fit_loop": SimpleNamespace(epoch_loop=loop),
            "strategy": SimpleNamespace(root_device=torch.device("cpu")),
            "overfit_batches": 0,
            "state": SimpleNamespace(fn="fit"),
        }
        return type("Answers", (L.Trainer,), answers)()

    return make


@pytest.fixture
def shards(picture_folder, tmp_path: Path) -> Path:
    """Tar files of pictures and labels, as webdataset keeps them."""
    root = picture_folder({"bright": 20, "dark": 20})
    order = np.random.default_rng(0).permutation(sorted(root.rglob("*.*")))
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, paths in {"train-00": order[:12], "train-01": order[12:24], "val-00": order[24:]}.items():
        with tarfile.open(folder / f"photos-{name}.tar", "w") as tar:
            for number, path in enumerate(paths):
                label = ["bright", "dark"].index(path.parent.name)
                for end, content in (
                    (path.suffix[1:].replace("png", "webp"), path.read_bytes()),
                    ("cls", b"%d" % label),
                ):
                    info = tarfile.TarInfo(f"{number:04d}.{end}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (folder / "classes.txt").write_text("bright\ndark\n")
    return folder
