import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import RandAugment

from vit_attn.data.memory import EpochShuffle, Images, Picks, Resident, ShuffledBatches, choose_loader
from vit_attn.data.module import as_it_is


def numbered(count: int, **options) -> Images:
    """Image i is of the grey i."""
    greys = torch.arange(count, dtype=torch.uint8)
    return Images(greys.view(-1, 1, 1, 1).expand(-1, 3, 8, 8), greys.long(), **options)


def batches(dataset: Images, epoch: int, workers: int = 0, rank: int = 0, ranks: int = 1, seed: int = 0):
    order = EpochShuffle(dataset, num_replicas=ranks, rank=rank, seed=seed)
    order.set_epoch(epoch)
    return list(DataLoader(dataset, 5, sampler=order, drop_last=True, collate_fn=as_it_is, num_workers=workers))


def test_an_epoch_holds_every_image_once_with_its_label():
    images, labels = (torch.cat(parts) for parts in zip(*batches(numbered(20), 3), strict=True))
    assert sorted(labels.tolist()) == list(range(20))
    assert torch.equal(images[:, 0, 0, 0].long(), labels)


def test_the_order_depends_on_seed_and_epoch():
    def order(**options):
        return [int(label) for _, labels in batches(numbered(20), **options) for label in labels]

    assert order(epoch=1) == order(epoch=1)
    assert len({tuple(order(epoch=epoch, seed=seed)) for epoch in (0, 1) for seed in (0, 9)}) == 4


def test_ranks_share_an_epoch_out():
    dataset = numbered(20)
    labels = [label for rank in (0, 1) for _, part in batches(dataset, 1, rank=rank, ranks=2) for label in part]
    assert sorted(int(label) for label in labels) == list(range(20))


def test_a_random_transform_is_the_same_in_any_number_of_workers_and_differs_by_epoch():
    noise = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    dataset = Images(noise, torch.arange(20), RandAugment(), seed=1)

    def by_label(epoch, workers):
        return {int(y): x for xs, ys in batches(dataset, epoch, workers) for x, y in zip(xs, ys, strict=True)}

    alone, shared, later = by_label(0, 0), by_label(0, 2), by_label(1, 0)
    assert all(torch.equal(alone[label], shared[label]) for label in range(20))
    assert sum(not torch.equal(alone[label], later[label]) for label in range(20)) > 10


def test_a_random_transform_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    dataset = numbered(4, transform=RandAugment())
    _ = dataset[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("address", [3, 3 + 20, 3 + 5 * 20])
def test_an_address_names_its_image_in_every_epoch(address):
    image, label = numbered(20)[address]
    assert (label, int(image[0, 0, 0])) == (3, 3)


@pytest.mark.parametrize(("count", "ranks"), [(20, 1), (23, 2), (25, 4)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_addresses_by_the_batch_are_those_of_the_sampler_one_by_one(count, ranks, epoch):
    dataset = numbered(count)
    resident, picks = Resident(dataset.images, dataset.labels, "cpu"), Picks(count, "train")
    for rank in range(ranks):
        order = ShuffledBatches(picks, 3, num_replicas=ranks, rank=rank, seed=7)
        order.set_epoch(epoch)
        loader = DataLoader(picks, batch_size=None, sampler=order)
        one_by_one = EpochShuffle(dataset, num_replicas=ranks, rank=rank, seed=7)
        one_by_one.set_epoch(epoch)
        addresses = list(one_by_one)
        assert len(loader) == len(addresses) // 3
        for number, pick in enumerate(loader):
            assert pick.addresses.tolist() == addresses[3 * number : 3 * number + 3]
            images, labels = resident.gather(pick.addresses)
            assert labels.tolist() == [address % count for address in addresses[3 * number : 3 * number + 3]]
            assert torch.equal(images, dataset.images[labels])


def test_all_images_go_to_the_device_if_they_fit(caplog: pytest.LogCaptureFixture):
    images = [torch.zeros(2000, 3, 100, 100, dtype=torch.uint8)]
    with caplog.at_level("INFO"):
        assert choose_loader("auto", images, 0.07)
        assert not choose_loader("auto", images, 0.05)
    assert "loader: memory, since the decoded images are 0.06 GB and memory_budget_gb=0.07" in caplog.text
    assert "loader: workers, since the decoded images are 0.06 GB and memory_budget_gb=0.05" in caplog.text
    assert choose_loader("memory", images, 0.0)
    assert not choose_loader("workers", images, 1.0)
