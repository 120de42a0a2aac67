import io
import os
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5

from vit_attn.data.datasets import cifar, coins
from vit_attn.data.datasets import registry as sources

GREYS = {"bright": 220, "dark": 30, "middle": 120}


def pytest_configure():
    """Hear what shells have commands in the background ignore, and ``nohup`` its own, and so all that these begin."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


PROCESSES = frozenset({"subprocess", "Popen", "spawn"})
"""Names in code that starts processes; with the browser's fixtures, these tests take longest."""
SLOW = PROCESSES | {"main", "fit", "resume"}
"""The same and names in code that runs a command or trains."""


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Mark as slow each test that runs a command, trains or starts processes, itself or in a helper or fixture of it.

    Files with the longest tests come first, so that no worker begins one when the others have nothing left.
    """
    rank: dict[Path, int] = {}
    for item in items:
        names = _names_used(item) if isinstance(item, pytest.Function) else set()
        if names & SLOW:
            item.add_marker(pytest.mark.slow)
        own = 0 if names & PROCESSES else 1 if item.get_closest_marker("slow") else 2
        rank[item.path] = min(own, rank.get(item.path, own))
    items.sort(key=lambda item: rank[item.path])


def _names_used(item: pytest.Function) -> set[str]:
    """Names in the code of a test, of its fixtures, and of what they call in their own modules."""
    fixtures = [each.func for definitions in item._fixtureinfo.name2fixturedefs.values() for each in definitions]
    waiting, seen, names = [item.function, *fixtures], set(), set()
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            codes.extend(each for each in code.co_consts if isinstance(each, CodeType))
            for name in code.co_names:
                names.add(name)
                used = function.__globals__.get(name)
                if getattr(used, "__module__", None) == function.__module__:
                    waiting.append(used)
    return names


@pytest.fixture(autouse=True, scope="session")
def _coins_drawn_once() -> Iterator[None]:
    """Keep the images of the data set ``coins``, which take 1.5 s of CPU time a run; each test gets a copy."""
    draw, kept = coins.Coins.tensors, {}

    def tensors(self: coins.Coins) -> tuple[torch.Tensor, ...]:
        key = (self.split, self.size, self.coins, self.seed)
        if key not in kept:
            kept[key] = draw(self)
        return tuple(each.clone() for each in kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coins.Coins, "tensors", tensors)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_process_group_left():
    """Fail a test that leaves a process group, since later ones would run as parts of a distributed one."""
    yield
    assert not torch.distributed.is_initialized(), "a test left a process group behind"


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
            "fit_loop": SimpleNamespace(epoch_loop=loop, _combined_loader=None),
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


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or name it in CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab with a storage of its own; an error in the page's code fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []
