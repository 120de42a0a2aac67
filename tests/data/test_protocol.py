"""A data module of one's own needs what the protocols say, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset, default_collate

from vit_attn.callbacks import AttentionLogger
from vit_attn.data import ImageData
from vit_attn.data_protocol import ClassificationData, ProbeData, ProbeImages
from vit_attn.task import Classifier


@dataclass
class Probe:
    images: torch.Tensor
    labels: torch.Tensor
    ground_truth: None = None


def collate(items: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """A tuple, as the types of the task have it; by default it is a list, which training takes as well."""
    return tuple(default_collate(items))


class OwnData(L.LightningDataModule):
    """The members of both protocols, and plain loaders."""

    num_classes, img_size, in_chans, class_names = 2, (16, 16), 3, ("dark", "bright")

    def __init__(self) -> None:
        super().__init__()
        self.labels = torch.arange(32) % 2
        noise = torch.randint(0, 100, (32, 3, 16, 16))
        self.images = (noise + 100 * self.labels[:, None, None, None]).to(torch.uint8)

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 127.5 - 1

    def probe(self, count: int) -> Probe:
        return Probe(self.images[:count], self.labels[:count])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset(), batch_size=8, shuffle=True, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset(), batch_size=8, collate_fn=collate)

    def dataset(self) -> TensorDataset:
        return TensorDataset(self.normalize(self.images), self.labels)


def test_a_data_module_of_the_protocols_members_alone_trains_and_draws_attention(tmp_path: Path):
    data = OwnData()
    assert isinstance(data, ClassificationData)
    assert isinstance(data, ProbeData)
    assert isinstance(data.probe(1), ProbeImages)
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 4}
    task = Classifier(arch_options=options, num_classes=data.num_classes, img_size=data.img_size)
    before = [each.clone() for each in task.net.parameters()]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=TensorBoardLogger(tmp_path, "a", "b"),
        callbacks=[AttentionLogger(num_images=1, max_cost=1.0)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, datamodule=data)
    assert any(not torch.equal(a, b) for a, b in zip(before, task.net.parameters(), strict=True))
    images = (
        EventAccumulator(str(tmp_path / "a" / "b"), size_guidance={"images": 0})
        .Reload()
        .Images("vit_attention/image_1")
    )
    assert [event.step for event in images] == [0, 4, 8]


def test_our_own_data_module_has_the_members_too():
    data = ImageData("coins")
    assert isinstance(data, ClassificationData)
    assert isinstance(data, ProbeData)
    data.prepare_data()
    assert isinstance(data.probe(1), ProbeImages)
