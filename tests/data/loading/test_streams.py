"""A run of a stream that was stopped within an epoch goes on with the images that are left of it."""

import gc
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.runs import curves, differences, fit, read, resume, stop_at
from vit_attn.data import ImageData
from vit_attn.data.datasets import streams
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.loading.streams import StreamImages, StreamLoader
from vit_attn.data.transforms.host import CentreCrop
from vit_attn.data.transforms.rng import seeded
from vit_attn.errors import UserError

pytestmark = pytest.mark.filterwarnings(  # webdataset leaves its tar files open
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


@pytest.fixture
def loader_of(shards: Path, trainer_at):
    """The training loader of a run; 6 batches an epoch."""
    pytest.importorskip("webdataset")

    def make(workers: int, epoch: int = 0, taken: int = 0, seed: int = 0):
        options = {"root": str(shards), "img_size": 8, "batch_size": 4, "loader": "workers", "normalize": "imagenet"}
        data = ImageData("wds/photos", num_workers=workers, seed=seed, **options)
        data.trainer = trainer_at(1, 0, epoch, taken)
        data.setup("fit")
        loader = data.train_dataloader()
        data.trainer.fit_loop._combined_loader = SimpleNamespace(flattened=[loader])
        loader.set_epoch(epoch)  # as Lightning does
        return loader

    return make


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_left_of_an_epoch_is_what_an_uninterrupted_run_has(loader_of, workers: int):
    whole = list(loader_of(workers, epoch=1))
    assert len(whole) == 6
    for taken in (1, 2, 5):
        assert_close(list(loader_of(workers, epoch=1, taken=taken)), whole[taken:], rtol=0, atol=0)
    other = list(loader_of(workers, epoch=2))
    assert not torch.equal(other[0][0], whole[0][0])
    assert list(loader_of(workers, epoch=1, taken=6)) == []


def test_images_have_an_augmentation_of_their_own(loader_of):
    def pixels(**options) -> torch.Tensor:
        return torch.cat([images for images, _ in loader_of(1, **options)])

    again = pixels()
    assert torch.equal(pixels(), again)
    assert not torch.equal(pixels(seed=1), again)


def test_with_another_number_of_workers_or_devices_a_run_does_not_go_on_within_an_epoch(loader_of):
    stopped = loader_of(2).state_dict()
    assert stopped == {"data.num_workers": 2, "data.batch_size": 4, "trainer.devices": 1}
    for changed in ({"data.num_workers": 3}, {"trainer.devices": 3}):
        loader = loader_of(2, taken=2)
        loader.load_state_dict(stopped | changed)
        with pytest.raises(UserError, match=r"stopped within an epoch of wds/photos, .* and was 3; set --\w+.\w+=3$"):
            next(iter(loader))
        loader = loader_of(2, epoch=1)
        loader.load_state_dict(stopped | changed)
        assert len(list(loader)) == 6  # at the start of an epoch any number will do


def test_a_reader_that_repeats_no_order_is_warned_of(monkeypatch: pytest.MonkeyPatch):
    class Items(list):
        reader = type("Reader", (), {})()
        set_epoch = set_loader_cfg = lambda self, *_, **__: None

    picture = np.zeros((9, 9, 3), np.uint8)
    monkeypatch.setattr(streams, "create_dataset", lambda *_, **__: Items([(picture, i) for i in range(8)]))
    images = StreamImages(Stream("tfds/a", None, "train", 8), CentreCrop((4, 4)), 3, training=True, batch_size=4)
    loader = StreamLoader(images, 1, 0, batch_size=4, num_workers=1)
    with pytest.warns(UserWarning, match="tfds/a has another order each time .* first 1 batches come again"):
        loader.start_at(1, {})
    assert len(list(loader)) == 2


def test_a_worker_has_a_tar_file_of_its_own_and_a_device_too(loader_of):
    assert loader_of(5).sampler.num_workers == 2  # of two files; without one, a reader would wait for ever
    stream = Stream("wds/a", None, "a.tar::b.tar::c.tar|9", 9)
    assert stream.max_workers(1) == 3
    with pytest.raises(UserError, match="wds/a has 3 tar files for training, fewer than the 4 devices"):
        stream.max_workers(4)


def test_every_generator_is_seeded_and_goes_on_as_if_nothing_had_been_drawn():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()

    def addressed(*address: int) -> tuple[float, float, float]:
        with seeded(*address):
            return draw()

    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first = addressed(0, 1, 2)
    assert first == addressed(0, 1, 2)
    assert all(a != b for a, b in zip(first, addressed(0, 2, 1), strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_stopped_ends_where_an_uninterrupted_one_ends(
    shards: Path, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    pytest.importorskip("webdataset")
    options = (
        f"--data.dataset=wds/photos --data.root={shards} --data.img_size=16 --data.batch_size=4 --data.loader=workers "
        f"--data.num_workers={workers} --data.normalize=imagenet --trainer.max_epochs=2 "
        "--trainer.limit_train_batches=1.0"
    ).split()
    whole = fit(tmp_path / "whole", *options)
    assert read(whole)["global_step"] == 12
    with monkeypatch.context() as patched:  # within an epoch
        stop_at(patched, "on_train_batch_end", 2)
        run = fit(tmp_path / "runs", *options, code=143)
    assert read(run)["global_step"] == 2
    resume(run, f"--data.num_workers={3 - workers}", code=2)
    told = f"it is {3 - workers} here and was {workers}; set --data.num_workers={workers}"
    assert told in capsys.readouterr().err
    with monkeypatch.context() as patched:  # at its end
        stop_at(patched, "on_train_epoch_end", 6)
        resume(run, code=143)
    assert read(run)["global_step"] == 6
    resume(run)
    assert differences(read(run), read(whole)) == []
    assert curves(run) == curves(whole)
