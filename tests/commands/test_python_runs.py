from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.runs import main
from vit_attn.data.datasets import coins
from vit_attn.data.module import ImageData
from vit_attn.task import Classifier

SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2}


def train(folder: Path, *data) -> Path:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, limit_val_batches=1, **quiet)
    trainer.fit(Classifier(arch_options=SMALL, num_classes=10, img_size=32), *data)
    trainer.save_checkpoint(folder / "python.ckpt")
    return folder / "python.ckpt"


def test_a_checkpoint_of_a_run_in_python_is_tested_on_its_own_data_set(tmp_path: Path, monkeypatch, capsys):
    for split in coins.SIZES:
        monkeypatch.setitem(coins.SIZES, split, 64)
    monkeypatch.chdir(tmp_path)
    path = train(tmp_path, ImageData("coins", batch_size=8))
    assert torch.load(path, weights_only=True)["data_settings"]["dataset"] == "coins"
    assert main(["test", f"--model={path}", "--trainer.accelerator=cpu"]) == 0
    assert "test: coins" in capsys.readouterr().out


def test_a_checkpoint_of_data_of_ones_own_is_not_tested_on_cifar10(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loader = DataLoader(TensorDataset(torch.zeros(8, 3, 32, 32), torch.arange(8)), batch_size=8)
    path = train(tmp_path, loader, loader)
    assert main(["test", f"--model={path}"]) != 0
    assert "does not say on which data set it was trained" in capsys.readouterr().err
