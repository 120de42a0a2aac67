import pytest
import torch

from vit_attn.data.loading.device_dataset import DeviceDataset
from vit_attn.data.loading.memory import fits_in_memory
from vit_attn.data.loading.sampler import EvaluationBatches, ShuffledBatches


def device_dataset(count: int) -> DeviceDataset:
    """Image i is of the grey i."""
    greys = torch.arange(count, dtype=torch.uint8)
    return DeviceDataset(greys.view(-1, 1, 1, 1).expand(-1, 3, 8, 8), greys.long(), "cpu")


def batches(count: int, epoch: int, rank: int = 0, ranks: int = 1, seed: int = 0, size: int = 5) -> list[torch.Tensor]:
    """Addresses of an epoch, a batch at a time."""
    order = ShuffledBatches(range(count), size, num_replicas=ranks, rank=rank, seed=seed)
    order.set_epoch(epoch)
    return list(order)


def test_an_epoch_holds_every_image_once_with_its_label():
    parts = [device_dataset(20).gather(addresses) for addresses in batches(20, 3)]
    images, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    assert sorted(labels.tolist()) == list(range(20))
    assert torch.equal(images[:, 0, 0, 0].long(), labels)


def test_the_order_depends_on_seed_and_epoch():
    def order(**options):
        return [int(address) % 20 for part in batches(20, **options) for address in part]

    assert order(epoch=1) == order(epoch=1)
    assert len({tuple(order(epoch=epoch, seed=seed)) for epoch in (0, 1) for seed in (0, 9)}) == 4


@pytest.mark.parametrize(("count", "ranks"), [(20, 1), (23, 2), (26, 4)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_have_blocks_of_what_one_has_in_each_step(count, ranks, epoch):
    whole = batches(count, epoch, seed=7, size=3 * ranks)
    parts = [batches(count, epoch, rank, ranks, seed=7, size=3) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(whole)} == {count // (3 * ranks)}
    for wanted, *found in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat(found), wanted)
        images, labels = device_dataset(count).gather(wanted)
        assert labels.tolist() == images[:, 0, 0, 0].tolist() == (wanted - epoch * count).tolist()


@pytest.mark.parametrize("address", [3, 3 + 20, 3 + 5 * 20])
def test_an_address_names_its_image_in_every_epoch(address):
    images, labels = device_dataset(20).gather(torch.tensor([address]))
    assert (int(labels), int(images[0, 0, 0, 0])) == (3, 3)


def test_all_images_go_to_the_device_if_they_fit(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        assert fits_in_memory("auto", 2000, 30_000, 0.07)
        assert not fits_in_memory("auto", 2000, 30_000, 0.05)
    assert "loader: memory, since the 2,000 decoded images are 0.06 GB and memory_budget_gb=0.07" in caplog.text
    assert "loader: workers, since the 2,000 decoded images are 0.06 GB and memory_budget_gb=0.05" in caplog.text
    assert fits_in_memory("memory", 2000, 30_000, 0.0)
    assert not fits_in_memory("workers", 2000, 30_000, 1.0)


@pytest.mark.parametrize("size", [1, 5, 30])
def test_one_device_evaluates_full_batches_and_a_smaller_last_one(size: int):
    found = list(EvaluationBatches(range(23), size, "val", torch.arange, num_replicas=1, rank=0))
    assert [each.tolist() for each in found] == [each.tolist() for each in torch.arange(23).split(size)]
    assert len(EvaluationBatches(range(23), size, "val", num_replicas=1, rank=0)) == len(found)
