"""A classifier fits itself to its data outside of the command line, too."""

import pickle
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vit_attn.checkpoints.model_card import DATA_KEY
from vit_attn.data import ImageData
from vit_attn.data.datasets import coins
from vit_attn.errors import UserError
from vit_attn.inference.network import open_network
from vit_attn.task import Classifier

SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2}
SHIPPED = "vit_attn_cifar10_patch4_32"


class Own(L.LightningDataModule):
    """Loaders, names and statistics."""

    def __init__(self, mean: float = 0.5, **members) -> None:
        super().__init__()
        self.class_names, self.mean, self.std = ("cat", "dog"), (mean,) * 3, (0.25,) * 3
        self.dataset = TensorDataset(torch.randn(16, 3, 16, 16), torch.arange(16) % 2)  # no name, as ImageData has
        vars(self).update(members)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=8)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=8)


def fit(task: Classifier, data: L.LightningDataModule, **options) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1} | options
    trainer = L.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)
    trainer.fit(task, data)
    return trainer


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coins, "SIZES", dict.fromkeys(coins.SIZES, 128))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    task = Classifier(arch_options=SMALL, num_classes=2, img_size=16)
    fit(task, Own()).save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    return tmp_path / "own.ckpt"


def test_sizes_are_those_of_the_weights_where_none_are_given(checkpoint: Path):
    task = Classifier(weights=checkpoint)
    assert [task.hparams[name] for name in ("num_classes", "img_size", "in_chans")] == [2, (16, 16), 3]
    assert Classifier(arch_options=SMALL).hparams["img_size"] == (32, 32)
    assert Classifier(arch_options=SMALL, img_size=[16, 24]).hparams["img_size"] == (16, 24)
    with pytest.raises(UserError, match=r"img_size must be a side in pixels, or height and width"):
        Classifier(img_size=[1, 2, 3])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"num_classes": 3}, r"num_classes is 3 in the data and 2 in the network.*num_classes=data.num_classes"),
        ({"img_size": 24}, r"img_size is \(24, 24\) in the data and \(16, 16\) in the network"),
        ({"in_chans": 1}, r"in_chans is 1 in the data and 3 in the network"),
    ],
)
def test_a_network_of_other_sizes_than_the_data_is_refused_before_the_first_step(members: dict, message: str):
    task = Classifier(arch_options=SMALL, num_classes=2, img_size=16)
    with pytest.raises(UserError, match=message):
        fit(task, Own(**members))


def test_a_checkpoint_of_data_of_ones_own_names_and_normalises_pictures(checkpoint: Path):
    card = open_network(checkpoint).card
    assert card.label_names == ("cat", "dog")
    assert (card.mean, card.std, card.input_size, card.dataset) == ((0.5,) * 3, (0.25,) * 3, (3, 16, 16), "")


def test_without_statistics_a_checkpoint_says_what_the_data_module_lacks(tmp_path: Path):
    task = Classifier(arch_options=SMALL, num_classes=2, img_size=16)
    trainer = fit(task, Own(std=None))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert DATA_KEY not in torch.load(tmp_path / "a.ckpt", weights_only=True)
    with pytest.raises(UserError, match="a data module with `mean`, `std` and `class_names`"):
        open_network(tmp_path / "a.ckpt")


@pytest.mark.parametrize("normalize", [None, "coins"])
def test_images_are_normalised_as_for_the_weights_unless_the_user_says_otherwise(normalize: str | None):
    data = ImageData("coins", batch_size=8, normalize=normalize)
    coins_mean = data.statistics.mean
    fit(Classifier(weights=SHIPPED, num_classes=10), data)
    assert (data.statistics.mean == coins_mean) == (normalize == "coins")


def test_a_head_of_as_many_other_classes_is_new_and_only_before_the_first_run(caplog):
    caplog.set_level("INFO")
    data, task = ImageData("coins", batch_size=8), Classifier(weights=SHIPPED)
    kept = task.net.head.weight
    fit(task, data)
    assert "the head of other classes was left out" in caplog.text
    head = task.net.head.weight
    assert head is not kept
    fit(task, data)  # as a cell of a notebook that runs again
    assert task.net.head.weight is head


def test_an_average_of_the_weights_has_the_new_head(caplog):
    caplog.set_level("INFO")
    task = Classifier(weights=SHIPPED, ema=0.5)
    fit(task, ImageData("coins", batch_size=8), limit_train_batches=2)
    assert caplog.text.count("the head of other classes was left out") == 1


def test_data_of_another_normalisation_than_the_weights_are_warned_of(checkpoint: Path):
    with pytest.warns(UserWarning, match=r"was trained on images of mean \(0.5, 0.5, 0.5\)"):
        fit(Classifier(weights=checkpoint), Own(mean=0.4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ".*does not have many workers|.*number of training batches")
        fit(Classifier(weights=checkpoint), Own())


def test_the_same_seeds_give_the_same_weights_and_a_trained_network_can_be_pickled():
    found = []
    for _ in range(2):
        L.seed_everything(1, verbose=False)
        task, data = Classifier(arch_options=SMALL), ImageData("coins", batch_size=8, seed=1)
        fit(task, pickle.loads(pickle.dumps(data)), limit_train_batches=3)
        found.append(pickle.loads(pickle.dumps(task)).state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
