from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from vit_attn.data import ImageData
from vit_attn.data.datasets.image_list import ImageFileList
from vit_attn.data.datasets.splits import Split
from vit_attn.data.loading.sampler import FixedBatches, ShuffledBatches
from vit_attn.data.loading.workers import DecodingDataset
from vit_attn.data.transforms.augment import Augment
from vit_attn.data.transforms.host import CentreCrop, HostAugment
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError

ALL = Augment(flip=0.5, rand_augment=9, colour_jitter=0.4, random_resized_crop=0.3)


def split_of(root: Path) -> Split:
    paths = sorted(root.rglob("*.*"))
    return Split(None, torch.arange(len(paths)), pictures=ImageFileList(paths))


def epoch_of(dataset: DecodingDataset, epoch: int, workers: int = 0, seed: int = 0) -> dict[int, torch.Tensor]:
    """Pixels of an epoch by label."""
    order = ShuffledBatches(dataset.labels, 5, num_replicas=1, rank=0, seed=seed)
    order.set_epoch(epoch)
    loader = DataLoader(dataset, batch_size=None, sampler=order, num_workers=workers)
    return {int(y): x for batch in loader for x, y in zip(batch.images, batch.labels, strict=True)}


def test_an_image_of_an_epoch_is_the_same_in_any_number_of_workers(picture_folder):
    dataset = DecodingDataset(split_of(picture_folder()), HostAugment((16, 16), ALL), seed=1)
    alone, shared, later = epoch_of(dataset, 0), epoch_of(dataset, 0, workers=2), epoch_of(dataset, 1)
    other = epoch_of(
        DecodingDataset(split_of(Path(dataset.pictures.name(0)).parents[1]), HostAugment((16, 16), ALL), seed=2), 0
    )
    assert sorted(alone) == list(range(30))
    assert all(torch.equal(alone[label], shared[label]) for label in range(30))
    assert sum(not torch.equal(alone[label], later[label]) for label in range(30)) > 20
    assert sum(not torch.equal(alone[label], other[label]) for label in range(30)) > 20


def test_a_random_transform_leaves_the_random_state_alone(picture_folder):
    dataset = DecodingDataset(split_of(picture_folder()), HostAugment((16, 16), ALL))
    before = torch.get_rng_state()
    _ = dataset[torch.tensor([2, 33])]
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_to_overfit_are_whole_and_the_same_in_every_epoch(picture_folder):
    dataset = DecodingDataset(split_of(picture_folder()), CentreCrop((8, 8)))
    batches = FixedBatches(dataset.labels, 7, num_replicas=1, rank=0)
    assert len(batches) == 4
    first = [dataset[addresses].labels.tolist() for addresses in batches]
    assert first[3] == lasting_order(30)[21:28].tolist()
    batches.set_epoch(5)
    assert [dataset[addresses].labels.tolist() for addresses in batches] == first
    parts = [list(FixedBatches(dataset.labels, 7, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [each.tolist() for step in zip(*parts, strict=True) for each in step] == first


def test_grey_pictures_stay_grey(picture_folder):
    batch = DecodingDataset(split_of(picture_folder()), HostAugment((8, 8), ALL), channels=1)[torch.arange(4)]
    assert batch.images.shape == (4, 1, 8, 8)


def test_a_corrupt_file_is_named_and_ends_the_run(picture_folder):
    root = picture_folder()
    bad = sorted(root.rglob("*.*"))[3]
    bad.write_bytes(bad.read_bytes()[:60])
    images = DecodingDataset(split_of(root), CentreCrop((8, 8)))
    batch = images[torch.tensor([2, 3 + 30])]
    assert batch.labels.tolist() == [2, 3]
    with pytest.raises(UserError, match=f"^{bad} cannot be read .*; repair or remove it, or skip with --data.skip_c"):
        batch.intact(skip_corrupt=False)
    with pytest.raises(
        UserError,
        match=f"^{bad} cannot be read .*; repair or remove it, or begin anew or set loader to memory to l",
    ):
        batch.intact(skip_corrupt=True)
    assert images[torch.tensor([2, 4])].intact(skip_corrupt=True)[1].tolist() == [2, 4]


class Still(L.LightningModule):
    """Trains one number, and counts its images."""

    def __init__(self):
        super().__init__()
        self.number, self.seen = torch.nn.Parameter(torch.zeros(1)), []

    def training_step(self, batch, _):
        self.seen += batch[1].tolist()
        return self.number.sum()

    def validation_step(self, batch, _):
        self.seen += batch[1].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, **options) -> Still:
    settings = {"img_size": 8, "batch_size": 4, "loader": "workers", "num_workers": 2, "normalize": "imagenet"}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    task = Still()
    data = ImageData("folder", str(root), **(settings | options))
    L.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet).fit(task, datamodule=data)
    return task


def test_a_corrupt_file_in_a_worker_ends_the_run_in_one_line(picture_folder):
    root = picture_folder()
    for path in held(root, "train")[::4]:
        path.write_text("no image")
    with pytest.raises(
        UserError, match=r"cannot be read as an image: .*; repair or remove it, or skip with --data"
    ) as caught:
        fit(root)
    assert "\n" not in str(caught.value)


def test_the_epoch_goes_on_past_corrupt_files_where_they_may_be_skipped(picture_folder, caplog):
    root = picture_folder()
    for path in held(root, "train")[::4]:
        path.write_text("no image")
    with caplog.at_level("INFO"):
        assert len(fit(root, skip_corrupt=True).seen) > 16
    (told,) = [line for line in caplog.messages if line.startswith("skip_corrupt: left out")]
    assert told.split()[3:6] == ["6", "training", "images:"]


def held(root: Path, name: str) -> list[Path]:
    data = ImageData("folder", str(root), batch_size=1)
    data.prepare_data()
    return [Path(path) for path in data.splits[name].pictures.paths]
