import json
import os
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from vit_attn.callbacks import TestReport, test_report
from vit_attn.plotting.confusion import draw_confusion, most_confused
from vit_attn.reports.report_text import report_text

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Given(L.LightningModule):
    """Task whose logits are the batch."""

    def test_step(self, batch, batch_idx):
        return batch[0]


class Data(L.LightningDataModule):
    named: tuple[str, ...] = ()

    def __init__(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.pairs = TensorDataset(logits, labels)
        self.dataset, self.num_classes, self.cache = "drawn", logits.shape[1], SimpleNamespace(tested_on="test")
        names = [f"name {i}" for i in range(self.num_classes)]
        self.class_names = (*self.named, *names[len(self.named) :])

    def test_dataloader(self):
        return DataLoader(self.pairs, batch_size=7, collate_fn=self.collate)

    @staticmethod
    def collate(pairs):
        logits, labels = zip(*pairs, strict=True)
        return torch.stack(logits), torch.stack(labels)


def drawn(classes: int, count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, max(2, classes - 1), (count,), generator=generator)  # the last class has no image
    logits = torch.randn(count, classes, generator=generator)
    return logits + 1.5 * F.one_hot(labels, classes), labels


def measured(folder: Path, logits: torch.Tensor, labels: torch.Tensor, tested_on: str = "test") -> dict:
    trainer, data = (
        L.Trainer(accelerator="cpu", callbacks=[TestReport(folder, log_to_tensorboard=False)], **QUIET),
        Data(logits, labels),
    )
    data.cache.tested_on = tested_on
    trainer.test(Given(), data, verbose=False)
    return json.loads((folder / "test.json").read_text())


def calibration_error(logits: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> float:
    confidence, guess = logits.softmax(dim=1).max(dim=1)
    place, error = (confidence * bins).ceil().long() - 1, 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            right = (guess == labels)[inside].float().mean()
            error += (inside.float().mean() * (right - confidence[inside].mean()).abs()).item()
    return error


def test_a_report_agrees_with_the_formulas_over_uneven_batches(tmp_path: Path, capsys):
    logits, labels = drawn(8)
    report, guess = measured(tmp_path / "run", logits, labels), logits.argmax(dim=1)
    counts = torch.zeros(8, 8, dtype=torch.long).index_put_((labels, guess), torch.tensor(1), accumulate=True)
    assert report["confusion"] == counts.tolist()
    assert report["images"] == 100
    assert report["top1"] == pytest.approx((guess == labels).float().mean().item())
    assert report["top5"] == pytest.approx((logits.topk(5).indices == labels[:, None]).any(1).float().mean().item())
    assert report["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert report["calibration_error"] == pytest.approx(calibration_error(logits, labels), abs=1e-5)
    for number, each in enumerate(report["classes"]):
        mine = labels == number
        assert each["name"] == f"name {number}"
        assert each["images"] == int(mine.sum())
        assert each["predicted"] == int((guess == number).sum())
        assert each["accuracy"] == (
            pytest.approx((guess[mine] == number).float().mean().item()) if number < 7 else None
        )
    known = [each["accuracy"] for each in report["classes"] if each["images"]]
    assert report["class_accuracy"] == pytest.approx(sum(known) / 7)
    output = capsys.readouterr().out
    assert f"top-1 accuracy       {report['top1']:.4f}" in output
    assert "expected, 15 bins" in output
    assert "name 7" not in output
    with Image.open(tmp_path / "run" / "confusion.png") as picture:
        assert picture.width > 500


def test_probabilities_of_one_fall_into_the_last_bin(tmp_path: Path):
    logits, labels = drawn(6)
    logits[:50] *= 1000  # certain, and often wrong
    assert (logits.softmax(dim=1).max(dim=1).values == 1).sum() > 40
    expected = calibration_error(logits, labels)
    assert measured(tmp_path, logits, labels)["calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_a_report_names_validation_images_that_replace_test_images(tmp_path: Path, capsys, monkeypatch):
    titles = []
    draw = test_report.draw_confusion
    monkeypatch.setattr(test_report, "draw_confusion", lambda *args: (titles.append(args[2]), draw(*args))[1])
    assert measured(tmp_path, *drawn(6), tested_on="val")["split"] == "val"
    assert titles[0].partition("\n")[2].startswith("drawn, 100 validation images\ntop-1 accuracy")
    assert "test: drawn, 100 validation images, step" in capsys.readouterr().out
    assert measured(tmp_path, *drawn(6))["split"] == "test"


def test_class_names_of_any_bytes_are_written(tmp_path: Path, monkeypatch):
    odd = os.fsdecode(b"caf\xe9")
    monkeypatch.setattr(Data, "named", (odd,))
    report = measured(tmp_path, *drawn(6))
    assert report["classes"][0]["name"] == odd


def test_few_classes_have_no_top_5(tmp_path: Path):
    two, three = measured(tmp_path / "2", *drawn(2)), measured(tmp_path / "3", *drawn(3))
    assert {"top2", "top5"}.isdisjoint(two)
    assert three["top2"] > three["top1"]
    assert "top5" not in three


def test_of_many_classes_the_worst_are_shown(tmp_path: Path, capsys):
    report = measured(tmp_path, *drawn(60, 600))
    text = report_text(report)
    assert "the 10 worst of 59 classes" in text
    worst = sorted(each["accuracy"] for each in report["classes"] if each["images"])[:10]
    assert [float(line.split()[3]) for line in text.strip().splitlines()[-10:]] == pytest.approx(worst, abs=1e-4)


def test_of_very_many_classes_there_is_no_matrix(tmp_path: Path):
    report = measured(tmp_path, *drawn(1001))
    assert report["confusion"] is None
    assert len(report["classes"]) == 1001
    assert not (tmp_path / "confusion.png").exists()
    assert "the 10 worst" in report_text(report)


@pytest.mark.parametrize("classes", [2, 10, 20, 100, 600])
def test_a_matrix_of_any_size_is_dark_where_its_counts_are(classes: int):
    counts = np.zeros((classes, classes), dtype=np.int64)
    counts[np.arange(classes), np.arange(classes)] = 50
    empty = draw_confusion(counts * 0, [f"name {i}" for i in range(classes)], "none").astype(int)
    full = draw_confusion(counts, [f"name {i}" for i in range(classes)], "all right").astype(int)
    assert full.shape[1] == empty.shape[1]
    assert max(full.shape) < 3000
    rows = min(len(full), len(empty))
    darker = (empty[:rows] - full[:rows]).sum(axis=2) > 300
    places = np.argwhere(darker[100:])
    assert np.corrcoef(places.T)[0, 1] > 0.7  # from the top left to the bottom right


def test_the_commonest_mistakes_come_first():
    assert most_confused(np.array([[9, 1, 0], [0, 9, 5], [2, 0, 9]]), 2) == [(1, 2), (2, 0)]


def _one_of_two(rank: int, address: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    logits, labels = drawn(8)
    report, data = TestReport(Path(folder), log_to_tensorboard=False), Data(logits, labels)
    trainer = SimpleNamespace(datamodule=data, is_global_zero=rank == 0, ckpt_path=None)
    report.on_test_start(trainer, Given())
    report.on_test_batch_end(trainer, Given(), logits[rank::2], (logits[rank::2], labels[rank::2]), 0)
    report.on_test_end(trainer, Given())
    torch.distributed.destroy_process_group()


def test_several_devices_count_together(tmp_path: Path):
    alone = measured(tmp_path / "alone", *drawn(8))
    address = f"file://{tmp_path / 'meet'}"
    torch.multiprocessing.spawn(_one_of_two, (address, str(tmp_path / "both")), nprocs=2)
    both = json.loads((tmp_path / "both" / "test.json").read_text())
    assert both["confusion"] == alone["confusion"]
    for name in ("images", "loss", "top1", "top5", "calibration_error", "class_accuracy"):
        assert both[name] == pytest.approx(alone[name], rel=1e-5)
