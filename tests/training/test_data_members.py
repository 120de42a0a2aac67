"""What is found out of a data module that says little."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from vit_attn.errors import UserError
from vit_attn.training.data_members import (
    class_names_of,
    class_weights_of,
    img_size_of,
    in_chans_of,
    mean_std_of,
    num_classes_of,
    spread_images,
)

LABELS = torch.arange(40) // 10
IMAGES = LABELS[:, None, None, None] + torch.zeros(40, 3, 6, 8)


class Named(Dataset):
    """A data set with the names that torchvision's have."""

    classes = ("cat", "dog", "emu", "fox")

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return IMAGES[index] + torch.rand(1), int(LABELS[index])


class Plain(L.LightningDataModule):
    """Loaders alone; the data set exists after ``setup``."""

    set_up = 0

    def setup(self, stage: str) -> None:
        self.set_up += 1
        self.dataset = Subset(Named(), range(len(LABELS)))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=8, shuffle=True)


def test_names_and_sizes_come_from_the_data_set_of_a_plain_module_which_is_set_up_once():
    data = Plain()
    assert class_names_of(data) == Named.classes
    assert num_classes_of(data) == 4
    assert (in_chans_of(data), *img_size_of(data)) == (3, 6, 8)
    assert data.set_up == 1
    assert mean_std_of(data) is None
    assert class_weights_of(data) is None


def test_members_of_the_module_come_first():
    data = Plain()
    data.class_names, data.img_size, data.in_chans, data.mean, data.std = ["a", "b"], 16, 1, [0.5], torch.tensor([0.25])
    data.class_weights = torch.tensor([1, 3])
    assert num_classes_of(data) == 2
    assert (in_chans_of(data), *img_size_of(data)) == (1, 16, 16)
    assert mean_std_of(data) == ((0.5,), (0.25,))
    assert class_weights_of(data) == [1.0, 3.0]
    assert data.set_up == 0


def test_without_names_the_number_of_classes_is_asked_for_with_what_it_is_for():
    loader = DataLoader(TensorDataset(IMAGES, LABELS))
    assert class_names_of(loader) is None
    with pytest.raises(UserError, match="the network's head needs: give it `num_classes`, or `class_names`"):
        num_classes_of(loader)


def test_images_are_from_all_over_the_data_set_and_leave_the_random_state():
    loader = DataLoader(Named(), batch_size=3, shuffle=True)
    before = torch.get_rng_state()
    images, labels = spread_images(loader, 4)
    again, _ = spread_images([loader], 4)
    assert labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(images, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_images_of_a_stream_are_taken():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(IMAGES, LABELS, strict=True)

    images, labels = spread_images(DataLoader(Stream(), batch_size=3), 4)
    assert torch.equal(images, IMAGES[:4])
    assert labels.tolist() == [0, 0, 0, 0]


def test_a_batch_of_another_kind_is_refused_with_what_it_is():
    with pytest.raises(UserError, match=r"a batch must be \(images, labels\).*got a dict with pixel_values, labels"):
        spread_images(DataLoader([{"pixel_values": torch.zeros(3, 4, 4), "labels": 0}]), 1)
    with pytest.raises(UserError, match=r"got images torch.uint8 \(1, 3, 4, 4\)"):
        spread_images(DataLoader([(torch.zeros(3, 4, 4, dtype=torch.uint8), 0)]), 1)
    with pytest.raises(UserError, match="has no images"):
        spread_images(DataLoader([], batch_size=2), 1)
