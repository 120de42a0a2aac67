from dataclasses import replace

import lightning as L
import pytest
import torch

from vit_attn.data import ImageData
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.registry import DATASETS
from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.balance import balanced_order, inverse_frequencies
from vit_attn.data.loading.sampler import ShuffledBatches

LABELS = torch.tensor([0] * 90 + [1] * 9 + [2])


def test_weights_are_inverse_frequencies():
    weights = inverse_frequencies(LABELS, 3)
    assert sum(weights) / 3 == pytest.approx(1)
    assert [weight * count for weight, count in zip(weights, (90, 9, 1), strict=True)] == pytest.approx(
        [weights[2]] * 3
    )
    assert all(torch.isfinite(torch.tensor(inverse_frequencies(LABELS, 5))))  # of classes without an image, too


def drawn(epoch: int, rank: int = 0, ranks: int = 1) -> list[int]:
    order = ShuffledBatches(LABELS, 10, order=balanced_order(LABELS), num_replicas=ranks, rank=rank, seed=3)
    order.set_epoch(epoch)
    return [int(address) % 100 for part in order for address in part]


def test_balanced_sampling_draws_each_class_as_often_by_seed_and_epoch():
    counts = LABELS[[index for epoch in range(30) for index in drawn(epoch)]].bincount()
    assert counts.sum() == 3000
    assert (counts - 1000).abs().max() < 120
    assert drawn(4) == drawn(4)
    assert drawn(4) != drawn(5)
    assert sorted(drawn(4)) == sorted(drawn(4, 0, 2) + drawn(4, 1, 2))


class Counter(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.number, self.seen = torch.nn.Parameter(torch.zeros(1)), []

    def training_step(self, batch, _):
        self.seen += batch[1].tolist()
        return self.number.sum()

    def validation_step(self, *_):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_a_small_class_is_seen_as_often_as_a_large_one(picture_folder, loader: str, caplog):
    root = str(picture_folder({"bright": 50, "dark": 5}))
    options = {"img_size": 8, "batch_size": 4, "loader": loader, "num_workers": 0, "normalize": "imagenet"}

    def counts(balance: str) -> torch.Tensor:
        task = Counter()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
        trainer = L.Trainer(accelerator="cpu", max_epochs=4, enable_model_summary=False, **quiet)
        trainer.fit(task, datamodule=ImageData("folder", root, balance=balance, **options))
        return torch.tensor(task.seen).bincount()

    assert counts("none").tolist() == pytest.approx([149, 11], abs=4)
    with caplog.at_level("INFO"):
        found = counts("sampling")
    assert (found - 86).abs().max() < 25
    assert "balance: sampling; 'bright' has 40 training images, 'dark' has 3" in caplog.text


def test_weights_are_there_for_the_loss_and_for_nothing_else(picture_folder):
    root = str(picture_folder({"bright": 20, "dark": 10}))
    assert ImageData("folder", root, balance="loss").class_weights == pytest.approx([2 / 3, 4 / 3])
    assert ImageData("folder", root, balance="sampling").class_weights is None
    assert ImageData("folder", root).class_weights is None


@pytest.mark.filterwarnings("ignore:training has no")  # of this small copy
def test_weights_of_classes_may_need_a_download(monkeypatch):
    split = Split(None, LABELS, pictures=ImageFileList(["none.png"] * len(LABELS)))
    asked = []
    splits = dict.fromkeys(("train", "val", "test"), split)
    source = replace(DATASETS["svhn"], load=lambda _root, download: asked.append(download) or splits)
    monkeypatch.setitem(DATASETS, "svhn", source)
    assert ImageData("svhn", balance="loss").class_weights is not None
    assert ImageData("svhn", balance="loss", download=False).class_weights is not None
    assert asked == [True, False]
