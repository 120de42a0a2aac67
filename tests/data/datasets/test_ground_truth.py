"""A second data set with ground-truth patches: a dozen lines, and one entry in the registry."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_in_patches
from vit_attn.data import ImageData
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.datasets.splits import DatasetInfo, Split
from vit_attn.data_protocol import GroundTruth


def spots(seed: int) -> Split:
    """Dark noise with one bright patch of 8 × 8 pixels in a grid of 2 × 2; the class is its corner."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 100, (64, 3, 2, 8, 2, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (64,), generator=generator)
    images[torch.arange(64), :, labels // 2, :, labels % 2] += 150
    return Split(
        images.flatten(4).flatten(2, 3), labels, lambda i: GroundTruth({"spot": (int(labels[i]),)}, (2, 2), "spot")
    )


def load(_root: Path, _download: bool) -> dict[str, Split]:
    return {"train": spots(0), "val": spots(1), "test": spots(2)}


SPOTS = DatasetInfo(("top left", "top right", "bottom left", "bottom right"), (16, 16), None, None, load)


def test_a_data_set_with_ground_truth_is_one_entry_of_the_registry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DATASETS, "spots", SPOTS)
    data = ImageData("spots", batch_size=16)
    images, labels = next(iter(data.train_dataloader()))
    assert (images.shape, labels.shape, data.num_classes) == ((16, 3, 16, 16), (16,), 4)
    probe = data.probe(6)
    layout = SimpleNamespace(grid_size=(4, 4), patch_size=(4, 4))  # a network of finer patches
    found = ground_truth_in_patches(probe, layout)
    for image, truth in zip(probe.images, found, strict=True):
        tokens = image.float().mean(dim=0).unfold(0, 4, 4).unfold(1, 4, 4).mean(dim=(2, 3)).flatten()
        assert set(tokens.topk(4).indices.tolist()) == set(truth.regions["spot"])
