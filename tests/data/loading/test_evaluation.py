"""In which order images are measured, and what a part of them is."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from vit_attn.data import ImageData
from vit_attn.data.datasets.splits import Split
from vit_attn.data.datasets.streams import Stream
from vit_attn.data.loading.limits import Limit, limit_of
from vit_attn.data.loading.sampler import EvaluationBatches
from vit_attn.data.summary import log_limit

pytestmark = pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
CLASSES = tuple(f"c{number}" for number in range(10))


class Watcher(L.LightningModule):
    """Keeps the labels that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.seen = torch.nn.Parameter(torch.zeros(1)), {}

    def training_step(self, batch, _):
        self._keep("train", batch)
        return self.number.sum()

    def validation_step(self, batch, batch_idx):
        self._keep("val", batch)

    def test_step(self, batch, batch_idx):
        self._keep("test", batch)

    def predict_step(self, batch, batch_idx):
        self._keep("predict", batch)
        return batch[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def _keep(self, stage: str, batch) -> None:
        self.seen.setdefault(stage, []).append(batch)


@pytest.fixture
def ten_classes(tmp_path: Path) -> Path:
    """Ten classes of 30 pictures, each in a grey of its own, one class after the other."""
    for number, name in enumerate(CLASSES):
        for each in range(30):
            path = tmp_path / "ten" / name / f"{each:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * number + each % 20, dtype=np.uint8)).save(path)
    return tmp_path / "ten"


def data_of(root: Path, loader: str = "memory", **options) -> ImageData:
    settings = {"img_size": 8, "batch_size": 16, "normalize": "imagenet", "num_workers": 0} | options
    return ImageData("folder", str(root), loader=loader, **settings)


def run(root: Path, verb: str, loader: str = "memory", seed: int = 0, **options) -> dict[str, list[torch.Tensor]]:
    """The labels of each batch, by stage."""
    watcher, trainer = Watcher(), L.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET, **options)
    getattr(trainer, verb)(watcher, datamodule=data_of(root, loader, seed=seed))
    return {stage: [labels for _, labels in batches] for stage, batches in watcher.seen.items()}


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_a_limited_validation_or_test_is_of_many_classes(ten_classes: Path, loader: str):
    for verb, stage, limit in (("validate", "val", "limit_val_batches"), ("test", "test", "limit_test_batches")):
        (labels,) = run(ten_classes, verb, loader, **{limit: 1})[stage]
        assert len(labels.unique()) >= 7
        whole = torch.cat(run(ten_classes, verb, loader, seed=9)[stage])
        assert torch.equal(labels, whole[:16])  # in the same order in every run
        assert whole.bincount().tolist() == [3] * 10  # each image once


@pytest.mark.parametrize("loader", ["memory", "workers"])
def test_predictions_keep_the_order_of_the_files(ten_classes: Path, loader: str):
    labels = torch.cat(run(ten_classes, "predict", loader)["predict"])
    assert labels.tolist() == sorted(labels.tolist())
    (first,) = run(ten_classes, "predict", loader, limit_predict_batches=1)["predict"]
    assert torch.equal(first, labels[:16])


@pytest.mark.parametrize("loader", ["memory", "workers"])
@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_run_that_overfits_trains_on_the_same_images_of_many_classes(ten_classes: Path, loader: str):
    watcher, trainer = Watcher(), L.Trainer(max_epochs=2, enable_checkpointing=False, overfit_batches=1, **QUIET)
    trainer.fit(watcher, datamodule=data_of(ten_classes, loader))
    first, again = (labels for _, labels in watcher.seen["train"])
    assert len(first.unique()) >= 7
    assert torch.equal(first, again)
    assert len(watcher.seen["val"][0][1].unique()) >= 7


def test_images_and_labels_stay_together_in_any_order(ten_classes: Path):
    watcher, trainer = Watcher(), L.Trainer(**QUIET)
    data = data_of(ten_classes)
    trainer.validate(watcher, datamodule=data)
    pixels = torch.cat([images for images, _ in watcher.seen["val"]])
    labels = torch.cat([labels for _, labels in watcher.seen["val"]])
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (data.statistics.mean, data.statistics.std))
    greys = ((pixels * std + mean) * 255).mean(dim=(1, 2, 3))
    assert ((greys + 0.5).int() // 20).tolist() == labels.tolist()


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_together_measure_first_what_one_device_does(ranks: int):
    parts = [list(EvaluationBatches(range(61), 4, "val", num_replicas=ranks, rank=rank)) for rank in range(ranks)]
    assert {len(each) for each in parts} == {-(-61 // (4 * ranks))}
    assert all(1 <= len(batch) <= 4 for each in parts for batch in each)
    steps = [torch.cat([each[step] for each in parts]) for step in range(len(parts[0]))]
    alone = torch.cat(list(EvaluationBatches(range(61), 4, "val", num_replicas=1, rank=0)))
    assert torch.equal(torch.cat(steps), alone)
    assert sorted(alone.tolist()) == list(range(61))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"limit_val_batches": 2}, None),  # more is not there
        ({"limit_val_batches": 0}, None),  # nothing is validated
        ({"limit_val_batches": 1}, ("trainer.limit_val_batches=1", 16, 30)),
        ({"limit_val_batches": 0.5}, ("trainer.limit_val_batches=0.5", 16, 30)),
        ({"fast_dev_run": True}, ("trainer.fast_dev_run=True", 16, 30)),
        ({"overfit_batches": 1}, ("trainer.overfit_batches=1", 16, 30)),
    ],
)
def test_what_limits_a_validation_is_known_before(options, expected):
    limit = limit_of(L.Trainer(**QUIET, **options), "val", 30, 16)
    assert expected == (limit and (limit.setting, limit.images, limit.of))


def test_a_run_begins_with_what_it_found_and_what_of_it_is_left_out(ten_classes: Path, caplog):
    with caplog.at_level("INFO"):
        run(ten_classes, "fit", limit_val_batches=1, num_sanity_val_steps=0)
    lines = [each.message for each in caplog.records]
    found = [
        f"folder {ten_classes}: 10 classes (c0 … c9), 240 training, 30 validation (held out from training), "
        "30 test (held out from training) images",
        "validation is limited to 16 of 30 images by trainer.limit_val_batches=1; best is chosen by these",
    ]
    assert [line for line in lines if line in found] == found
    assert lines.index(found[1]) == lines.index(found[0]) + 1
    assert not [line for line in lines[: lines.index(found[0])] if line.startswith(("loader", "normalize"))]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_commands_begin_with_it_as_well(ten_classes: Path, verb: str, caplog):
    short = {"validate": "val"}.get(verb, verb)
    with caplog.at_level("INFO"):
        run(ten_classes, verb, **{f"limit_{short}_batches": 1})
    lines = [each.message for each in caplog.records]
    assert sum(line.startswith(f"folder {ten_classes}: 10 classes (c0 … c9)") for line in lines) == 1
    what = {"validate": "validation", "predict": "prediction"}.get(verb, verb)
    assert f"{what} is limited to 16 of 30 images by trainer.limit_{short}_batches=1" in lines


def test_remarks_on_the_data_follow_what_was_found(ten_classes: Path, caplog):
    data = data_of(ten_classes)
    object.__setattr__(data.source, "remarks", ["12 thumbnails left out"])
    with caplog.at_level("INFO"):
        data.prepare_data()
    assert [each.message for each in caplog.records][1:] == ["12 thumbnails left out"]


def test_a_part_of_a_stream_is_said_to_be_its_first_images(caplog):
    split = Split(None, torch.tensor([0] * 8 + [1] * 8), stream=Stream("wds/photos", None, "val", 16))
    limit = Limit("trainer.limit_val_batches=1", 4, 16)
    store = SimpleNamespace(in_memory=False)
    with caplog.at_level("INFO"):
        log_limit(SimpleNamespace(limit=lambda stage: limit, splits={"val": split}, cache=store), "validate")
    expected = (
        "by trainer.limit_val_batches=1; they are the first of the stream, of 1 of 2 classes, and no random sample"
    )
    assert caplog.messages == [f"validation is limited to 4 of 16 images {expected}"]
