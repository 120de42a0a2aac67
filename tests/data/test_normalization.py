from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vit_attn.checkpoints.model_card import DATA_KEY, ModelCard
from vit_attn.data import ImageData
from vit_attn.data import normalization as statistics
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.normalization import Statistics, find_statistics, measure
from vit_attn.errors import UserError


def test_statistics_are_those_of_all_pixels():
    images = torch.randint(0, 200, (7, 3, 5, 6), dtype=torch.uint8)
    found = measure(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert found.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-4)
    assert measure(torch.full((2, 1, 3, 3), 9, dtype=torch.uint8)).std == (0.001,)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", 0.485, 0.229),
        ("inception", 0.5, 0.5),
        ("clip", 0.48145466, 0.26862954),
        ("cifar10", 0.4914, 0.2470),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", 0.5, 0.5),
        ("deit3_small_patch16_224", 0.485, 0.229),
        ("vit_attn_coins_patch4_32", 0.25, 0.18),
    ],
)
def test_known_statistics_are_found_by_name(name: str, mean: float, std: float):
    found = find_statistics(name, DATASETS)
    assert (found.mean[0], found.std[0]) == (mean, std)


def test_a_checkpoint_tells_its_own(tmp_path: Path):
    card = ModelCard("", {}, ("cat", "dog"), (3, 8, 8), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), dataset="pets")
    torch.save({DATA_KEY: card.data_state()}, tmp_path / "a.ckpt")
    assert find_statistics(str(tmp_path / "a.ckpt"), DATASETS) == Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    torch.save({}, tmp_path / "b.ckpt")
    (tmp_path / "c.ckpt").write_text("no checkpoint")
    for name, message in (("b", "does not say"), ("c", "is not a whole checkpoint"), ("d", "not found")):
        with pytest.raises(UserError, match=message):
            find_statistics(str(tmp_path / f"{name}.ckpt"), DATASETS)


def test_a_checkpoint_of_a_network_that_is_not_known_here_tells_its_statistics(tmp_path: Path):
    card = ModelCard("", {}, ("cat", "dog"), (3, 8, 8), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), dataset="pets")
    network = {"arch": "of_a_plugin", "num_classes": 2, "in_chans": 3, "img_size": [16, 16]}
    torch.save({DATA_KEY: card.data_state(), "hyper_parameters": network}, tmp_path / "a.ckpt")
    assert find_statistics(str(tmp_path / "a.ckpt"), DATASETS) == Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_an_export_tells_its_own(tmp_path: Path):
    card = ModelCard("vit_attn_coins_patch4_32", {}, None, (3, 32, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", card.metadata())
    assert find_statistics(str(tmp_path / "a.safetensors"), DATASETS) == Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
    for name, message in (("b", "b.safetensors is not a file of `vit-attn export`"), ("c", "not found")):
        with pytest.raises(UserError, match=message):
            find_statistics(str(tmp_path / f"{name}.safetensors"), DATASETS)


def test_unknown_statistics_are_refused_before_anything_is_read():
    with pytest.raises(UserError, match="no statistics are known as 'imagenit', did you mean 'imagenet'"):
        ImageData("cifar10", root="nowhere", normalize="imagenit")
    with pytest.raises(UserError, match=r"normalize: the weights of vit_tiny_patch16_224\.abc cannot be had"):
        ImageData("cifar10", root="nowhere", normalize="vit_tiny_patch16_224.abc")


def test_statistics_fit_the_channels():
    assert Statistics((0.3,), (0.1,)).for_channels(3) == Statistics((0.3,) * 3, (0.1,) * 3)
    assert Statistics((0.1, 0.2, 0.3), (0.1, 0.1, 0.1)).for_channels(1).mean == pytest.approx((0.2,))


def test_unknown_ones_are_computed_once_said_and_kept(picture_folder, caplog: pytest.LogCaptureFixture):
    data = ImageData("folder", str(picture_folder()), img_size=8, batch_size=4)
    with caplog.at_level("INFO"):
        data.setup("fit")
        card = data.card
    found = measure(data.splits["train"].decoded())
    assert (card.mean, card.std) == (found.mean, found.std)
    (told,) = [line for line in caplog.messages if line.startswith("normalize: ")]
    assert told.endswith("of the 24 training images")
    pixels = data.normalize(data.splits["train"].decoded())
    assert pixels.mean(dim=(0, 2, 3)).abs().max() < 2e-3


def test_workers_and_memory_agree_on_them_and_large_sets_are_sampled(picture_folder, monkeypatch, caplog):
    root = str(picture_folder())
    monkeypatch.setattr("vit_attn.data.loading.cache.SAMPLE", 10)
    assert statistics.SAMPLE > 1000
    with caplog.at_level("INFO"):
        once, again = (
            ImageData("folder", root, img_size=8, loader=loader, batch_size=4) for loader in ("memory", "workers")
        )
        once.setup("fit")
        again.setup("fit")
    assert once.statistics == again.statistics
    assert again.splits["train"].images is None
    assert "of 10 of the 24 training images" in caplog.text


def test_a_checkpoint_is_measured_with_the_statistics_that_it_was_trained_with(picture_folder):
    data = ImageData("folder", str(picture_folder()), img_size=8, batch_size=4)
    state = ImageData("folder", data.root.as_posix(), img_size=8, normalize="clip").state_dict()
    data.load_state_dict(state)
    data.setup("test")
    assert data.statistics.mean == find_statistics("clip", DATASETS).mean
    white = data.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert white[0, 0].item() == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-5)
